"""Activation checkpointing: parts of a stack that the backward pass recomputes instead of keeping their activations.

Chen et al., arXiv:1604.06174. The inputs of such a part are kept, and it draws the same random numbers when recomputed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..kernels import compat
from ..kernels.batch_rows import batch_rows, rows_of_batch
from .context import ForwardContext
from .intermediates import Intermediates
from .plan import Step


class Part(NamedTuple):
    """Consecutive steps of the plan.

    Attributes:
        recomputed: whether the backward pass recomputes them.
    """

    steps: tuple[Step, ...]
    recomputed: bool


def parts_of(plan: Sequence[Step]) -> list[Part]:
    """The plan cut into parts, each a single block, the blocks of a stage with their sums, or the steps in between."""
    parts: list[tuple[object, list[Step]]] = []
    for step in plan:
        key: object = {"block": step.node, "stage": step.stage}.get(step.checkpoint or "")
        if step.block is None and parts and parts[-1][0] == step.stage:
            key = step.stage
        if not parts or parts[-1][0] != key:
            parts.append((key, []))
        parts[-1][1].append(step)
    return [Part(tuple(steps), key is not None) for key, steps in parts]


def can_recompute() -> bool:
    """Not under a compiler, which chooses itself, nor in torch.func transforms, which see every saved tensor."""
    return not (torch.compiler.is_compiling() or compat.transforms_active())


def recompute(steps: Callable[[ForwardContext], None], ctx: ForwardContext) -> None:
    """Run `steps` on the context; the backward pass runs them again."""
    record = ctx.intermediates
    recorded, keeps_attention = record is not None, record is not None and record.keep_attention
    # a reference to the whole context would make later outputs keep themselves alive
    fixed = replace(ctx, values={}, added={}, losses={}, intermediates=None)
    rows = batch_rows()

    def again(values: dict[str, Any], added: dict[str, Tensor]) -> ForwardContext:
        own = replace(fixed, values={**values}, added={**added}, losses={})
        own.intermediates = Intermediates(keeps_attention) if recorded else None
        with rows_of_batch(rows):
            steps(own)
        return own

    after: ForwardContext = checkpoint(again, ctx.values, ctx.added, use_reentrant=False)
    ctx.values, ctx.added = after.values, after.added
    ctx.losses |= after.losses
    if record is not None and after.intermediates is not None:
        record.streams |= after.intermediates.streams
        record.contexts |= after.intermediates.contexts
        record.states |= after.intermediates.states
        record.attention |= after.intermediates.attention
        record.statistics |= after.intermediates.statistics
