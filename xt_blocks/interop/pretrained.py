"""The model of a folder that `save_pretrained` wrote, of whichever class it is."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from ..generation.seq2seq import XTransformer
from ..models.lower import MODELS
from ..models.sequence import SequenceModel
from ..models.vision import ViTransformerWrapper
from ..runtime import hub
from ..runtime.pretrained import Saved
from ..runtime.stack import Stack


def from_pretrained(
    folder: str | PathLike[str], *, revision: str | None = None, **options: Any
) -> Stack | SequenceModel | ViTransformerWrapper | XTransformer:
    """The model of a folder that `save_pretrained` wrote.

    Its class is what its graph says, as `lower` makes them, or XTransformer where there is an encoder and a decoder.

    Args:
        folder, revision, options: as the classes' own `from_pretrained` has them.

    Raises:
        UserError, GraphError: as theirs.
    """
    found = hub.folder_of(Path(folder) if not isinstance(folder, str) else folder, revision)
    graphs = Saved.read(found).graphs
    owner: type[Any] = (
        XTransformer if "" not in graphs else Stack if graphs[""].reads is None else MODELS[graphs[""].reads]
    )
    model: Stack | SequenceModel | ViTransformerWrapper | XTransformer = owner.from_pretrained(found, **options)
    return model
