"""Activation checkpointing: parts of a stack that the backward pass runs again, so that nothing inside them is kept.

Chen et al., arXiv:1604.06174. What such a part starts from is kept, and its random numbers are drawn alike when it runs
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..kernels import compat
from .context import ForwardContext
from .intermediates import Intermediates
from .plan import Step


class Segment(NamedTuple):
    """Steps of the plan in a row.

    Attributes:
        again: the backward pass runs them again.
    """

    steps: tuple[Step, ...]
    again: bool


def segments(plan: Sequence[Step]) -> list[Segment]:
    """The plan cut into parts, each a block by itself, the blocks of a stage with their sums, or what is between."""
    parts: list[tuple[object, list[Step]]] = []
    for step in plan:
        key: object = {"block": step.node, "stage": step.stage}.get(step.checkpoint or "")
        if step.block is None and parts and parts[-1][0] == step.stage:
            key = step.stage
        if not parts or parts[-1][0] != key:
            parts.append((key, []))
        parts[-1][1].append(step)
    return [Segment(tuple(steps), key is not None) for key, steps in parts]


def may_run_again() -> bool:
    """A compiler chooses itself what to compute again, and transforms of torch.func see every tensor that is kept."""
    return not (torch.compiler.is_compiling() or compat.transforms_active())


def run_again(steps: Callable[[ForwardContext], None], forward: ForwardContext) -> None:
    """Let `steps` bring the pass forward; the backward pass lets them do so again."""
    record = forward.intermediates
    recorded, keeps_attention = record is not None, record is not None and record.keep_attention
    # what a later step gives would keep itself alive, if its graph knew the whole pass
    fixed = replace(forward, values={}, added={}, scores={}, intermediates=None)

    def again(values: dict[str, Tensor], added: dict[str, Tensor], scores: dict[str, Any]) -> ForwardContext:
        own = replace(fixed, values={**values}, added={**added}, scores={**scores})
        own.intermediates = Intermediates(keeps_attention) if recorded else None
        steps(own)
        return own

    after: ForwardContext = checkpoint(again, forward.values, forward.added, forward.scores, use_reentrant=False)
    forward.values, forward.added, forward.scores = after.values, after.added, after.scores
    if record is not None and after.intermediates is not None:
        record.streams |= after.intermediates.streams
        record.states |= after.intermediates.states
        record.attention |= after.intermediates.attention
