"""What `torch.load` takes with `weights_only=True`: what a pass keeps, plain containers of tensors.

    torch.save(mems, "mems.pt")
    mems = torch.load("mems.pt")      # once xt_blocks' models are imported

A file that is loaded before them names the class that torch misses. Models are saved by their state dict.
"""

from __future__ import annotations

import torch

from blockdsl.graph.state import Kept
from blockdsl.registry.state import State

from ..kernels.cross_entropy import Target
from ..kernels.request import Scores
from .cache import Cache
from .fixed import FixedShapes
from .inputs import ForwardInputs
from .intermediates import Intermediates
from .memories import Memories
from .sequence import SequenceState
from .state import ContextState, NodeState, RowState, TokenPieces

CLASSES = (
    *(Memories, Intermediates, Scores, Target),
    *(Cache, SequenceState, FixedShapes, NodeState, RowState, ContextState, TokenPieces, ForwardInputs, Kept, State),
)
"""None of them does anything when it is made or filled."""


def allow() -> None:
    """Let `torch.load` make them."""
    torch.serialization.add_safe_globals([*CLASSES])
