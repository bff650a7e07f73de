"""Context parallelism: each rank runs some consecutive tokens of each row, and attends to those of the ranks before.

To a rank these are like tokens that a cache holds, whose keys and values are gathered in the same pass instead of
having been kept (as Llama 3 does, arXiv:2407.21783, section 3.3.2). Owns this cache and the gathering, whose gradient
is each rank's sum. Leaves which stacks can run so to `blockdsl.plan.context`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from blockdsl.graph.state import Kept
from blockdsl.registry.state import State

from ..blocks.real_tokens import RealTokens
from ..kernels.compat import all_gather, reduce_scatter
from ..runtime.cache import Cache
from ..runtime.sequence import SequenceState
from ..runtime.state import NodeState, RowState


class GatheredCache(Cache):
    """What stands for a cache in one pass of a rank; the pass leaves nothing in it.

    Args:
        group: the ranks along cp, in the order of their tokens.
        batch, seq: rows, and tokens of each on a rank.
        kept: node → what its layer reads of earlier tokens.
        mask: (batch, rank · seq) bool, which of the earlier tokens are real; None: all.
    """

    keeps = False

    def __init__(
        self, group: dist.ProcessGroup, batch: int, seq: int, kept: Mapping[str, Kept], mask: Tensor | None
    ) -> None:
        past = group.rank() * seq
        super().__init__(batch, past + seq, {})
        self.length, self.mask = past, mask
        self.sequence = SequenceState(length=past, mask=mask)
        self.nodes = {node: _Gathered(self, own, group) for node, own in kept.items()}
        self.shifts = {node: _Tail(self, own.shift, group) for node, own in kept.items() if own.shift is not None}


class _Gathered(NodeState):
    """A layer's pieces by token, of all ranks up to this one, and the last tokens of those before it."""

    def __init__(self, progress: GatheredCache, kept: Kept, group: dist.ProcessGroup) -> None:
        super().__init__(progress, kept)
        self.group, self.end, self.past, self.mask = group, progress.max_len, progress.length, progress.mask
        self.first = 0 if self.window is None else max(0, self.past - self.window)

    def tail(self, name: str, x: Tensor, real: RealTokens) -> Tensor:
        (batch, seq, _), nothing = x.shape, self.read(name).to(x.dtype)
        n, ranks = nothing.shape[1], self.group.size()
        every = gathered(real.last(nothing, x), self.group)
        mask = x.new_ones(batch, self.past, dtype=torch.bool) if self.mask is None else self.mask
        counts = mask.reshape(batch, self.group.rank(), seq).sum(2)
        counts = F.pad(counts, (0, ranks - self.group.rank()))  # none of this rank's and of later ones'
        at_end = torch.arange(n, device=x.device, dtype=torch.int64) >= n - counts[..., None]
        before = RealTokens.of(at_end.flatten(1), ranks * n)
        return before.last(nothing, before.first(every))

    def append(self, **new: Tensor) -> tuple[Tensor, ...]:
        return tuple(gathered(t, self.group)[..., self.first : self.end, :] for t in new.values())


class _Tail(RowState):
    """The last tokens of the ranks before, for a token shift."""

    def __init__(self, progress: GatheredCache, piece: State, group: dist.ProcessGroup) -> None:
        super().__init__(progress, piece)
        self.group, self.size = group, piece.shape[0]

    def before(self, x: Tensor) -> Tensor:
        count = min(self.size, x.shape[1])  # a tail may be longer than what a rank has
        every = F.pad(gathered(x[:, x.shape[1] - count :], self.group), (0, 0, self.size, 0))
        start = self.group.rank() * count
        return torch.cat((every[:, start : start + self.size], x), dim=1)


def gathered(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """`x: (..., tokens, features)` of all ranks, (..., ranks · tokens, features)."""
    every: Tensor = _Gather.apply(x, group)  # type: ignore[no-untyped-call]
    return every


class _Gather(torch.autograd.Function):
    """Its gradient is the sum of what all ranks have for this one's tokens."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        own = x.movedim(-2, 0).contiguous()
        every = own.new_empty(len(own) * group.size(), *own.shape[1:])
        all_gather(every, own, group=group)
        return every.movedim(0, -2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        every = grad.movedim(-2, 0).contiguous()
        own = every.new_empty(len(every) // ctx.group.size(), *every.shape[1:])
        reduce_scatter(own, every, group=ctx.group)
        return own.movedim(0, -2), None
