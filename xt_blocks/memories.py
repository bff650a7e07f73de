"""Memories of earlier segments (Transformer-XL, Dai et al., arXiv:1901.02860), keyed by the graph's nodes.

A node remembers the stream it read, without gradient and before its norm. Self-attention takes keys and values of all
that is remembered; a token shift needs the last few tokens alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .stack import Step


@dataclass(frozen=True)
class Memories:
    """The end of what one batch of sequences has been through.

    Attributes:
        streams: node → (batch, tokens, dim), what it read.
        length: tokens remembered.
        mask: (batch, length) bool, which of them are real; None: all.
        pinned: of them, how many at the front stay there for good: memory tokens.
    """

    streams: dict[str, Tensor]
    length: int
    mask: Tensor | None = None
    pinned: int = 0

    @property
    def batch(self) -> int:
        return next(iter(self.streams.values())).shape[0] if self.streams else 0


def remembered(step: Step) -> int | None:
    """How many tokens a step needs of the past: all there are (None), or those its token shift reaches."""
    return None if "memory" in step.inputs else step.use.shift


def extended(
    before: Memories | None,
    steps: list[Step],
    streams: dict[str, Tensor],
    mask: Tensor | None,
    most: int,
    pinned: int = 0,
) -> Memories:
    """The memories behind a further segment.

    Args:
        before: those it started with.
        streams: node → (batch, seq, dim), what it read.
        mask: (batch, seq) bool of the segment; None: all are real.
        most: tokens to remember, apart from the pinned ones.
        pinned: tokens at the front of a first segment that stay.
    """
    new = next(iter(streams.values())) if streams else None
    if before is not None:
        pinned = before.pinned
    past = 0 if before is None else before.length
    total = past + (0 if new is None else new.shape[1])
    kept: dict[str, Tensor] = {}
    for step in steps:
        shift = remembered(step)
        if step.node not in streams or shift == 0:
            continue
        stream = streams[step.node].detach()
        if before is not None and step.node in before.streams:
            stream = torch.cat((before.streams[step.node].to(stream.dtype), stream), dim=1)
        kept[step.node] = (
            _end(stream, most, pinned) if shift is None else stream[:, stream.shape[1] - min(shift, total) :]
        )
    masks = None
    if new is not None and (mask is not None or (before is not None and before.mask is not None)):
        masks = _end(torch.cat((_mask(before, new), _full(new) if mask is None else mask), dim=1), most, pinned)
    return Memories(kept, min(total, most + pinned), masks, pinned)


def _mask(before: Memories | None, like: Tensor) -> Tensor:
    if before is not None and before.mask is not None:
        return before.mask
    return _full(like)[:, :1].expand(-1, 0 if before is None else before.length)


def _full(like: Tensor) -> Tensor:
    return torch.ones(like.shape[:2], dtype=torch.bool, device=like.device)


def _end(x: Tensor, most: int, pinned: int) -> Tensor:
    """The last `most` tokens of `x: (batch, tokens, ...)`, with the pinned ones in front."""
    if x.shape[1] <= most + pinned:
        return x
    return torch.cat((x[:, :pinned], x[:, x.shape[1] - most :]), dim=1)
