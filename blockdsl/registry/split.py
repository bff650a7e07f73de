"""How a layer splits over the ranks of tensor parallelism (arXiv:1909.08053), as its kind declares it. No torch.

Each rank runs the same class with fewer heads or hidden features, on the same input. The sum of what the ranks give is
what the whole layer gives. Owns what a share is and where it lies in the whole; leaves out which blocks split
(`blockdsl.plan.local`) and what is sent (`xt_blocks.distributed.tensor`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from .options import Value


class Held(NamedTuple):
    """Consecutive indices of a parameter's axis that a rank holds.

    Attributes:
        whole: where they are in the whole parameter.
        local: where they are in the rank's own.
        first: no rank before this one holds them.
    """

    whole: slice
    local: slice
    first: bool


@dataclass(frozen=True)
class Cut:
    """Which part of a parameter each rank holds.

    Args:
        axis: which is cut.
        parts: sizes of consecutive parts of that axis, each of which is cut by itself, as the queries, keys and values
            of one linear layer; none: the axis is one part.
        shared: of each part, how many consecutive ranks hold the same piece of it, as a key that several ranks' queries
            read; none: one. The gradient of what is shared is summed over those who share it.
        once: the first rank holds all of it, and the others zeros of the same shape, which are not trained.
    """

    axis: int = 0
    parts: tuple[int, ...] = ()
    shared: tuple[int, ...] = ()
    once: bool = False

    def held(self, size: int, ranks: int, rank: int) -> tuple[Held, ...]:
        """What a rank holds of an axis of this size, in order; nothing if only the first rank does."""
        if self.once:
            return (Held(slice(0, size), slice(0, size), True),) if rank == 0 else ()
        held, start, at = [], 0, 0
        for size_here, (count, sharers) in zip(self.parts or (size,), self.local_parts(size, ranks), strict=True):
            first = start + rank // sharers * count
            held.append(Held(slice(first, first + count), slice(at, at + count), rank % sharers == 0))
            start, at = start + size_here, at + count
        return tuple(held)

    def local_parts(self, size: int, ranks: int) -> list[tuple[int, int]]:
        """Of each part of an axis of this size: how many indices each rank has, and how many ranks have the same."""
        return [(part * sharers // ranks, sharers) for part, sharers in self._parts(size)]

    def local_shape(self, shape: tuple[int, ...], ranks: int) -> tuple[int, ...] | None:
        """The shape of what a rank holds of a parameter of this shape; None: it does not come out even."""
        if self.once or not shape:
            return shape
        if self.axis >= len(shape) or sum(self.parts or shape[self.axis : self.axis + 1]) != shape[self.axis]:
            return None
        if any(ranks % sharers or part * sharers % ranks for part, sharers in self._parts(shape[self.axis])):
            return None
        own = sum(count for count, _ in self.local_parts(shape[self.axis], ranks))
        return (*shape[: self.axis], own, *shape[self.axis + 1 :])

    def _parts(self, size: int) -> list[tuple[int, int]]:
        parts = self.parts or (size,)
        return [*zip(parts, self.shared or (1,) * len(parts), strict=True)]


@dataclass(frozen=True)
class Split:
    """One rank's share of a layer.

    Args:
        options: those of the layer's options that differ in a share.
        cuts: parameter of the module → which part of it each rank holds; one that is not here is whole on every rank,
            and its gradient the sum of the ranks'. A name that a layer of these options lacks does no harm.
        once: parameters that are added to the layer's output, as the bias of its last linear layer: the first rank's
            alone count.
        sums: numbers of a token that ranks add up within the layer, as for a norm over the features of all.
        table: which features each rank holds of the table of `value_embed`; None: it reads none.
    """

    options: Mapping[str, Value]
    cuts: Mapping[str, Cut] = field(default_factory=dict)
    once: Sequence[str] = ()
    sums: int = 0
    table: Cut | None = None

    def of(self, name: str, ranks: int) -> Cut:
        """Which part of this parameter of the layer each rank holds."""
        return Cut(once=True) if name in self.once else self.cuts.get(name, Cut(shared=(ranks,)))

    def renamed(self, prefixes: Sequence[str]) -> Split:
        """The same of a layer that has several such modules under these prefixes."""
        names = [(prefix, name) for prefix in prefixes for name in self.cuts]
        cuts = {f"{prefix}.{name}": self.cuts[name] for prefix, name in names}
        once = tuple(f"{prefix}.{name}" for prefix in prefixes for name in self.once)
        return replace(self, cuts=cuts, once=once, sums=self.sums * len(prefixes))


def shared_by(count: int, ranks: int) -> int | None:
    """How many consecutive ranks share one of so many things, as heads; None: they do not come out even."""
    if count % ranks == 0:
        return 1
    return ranks // count if ranks % count == 0 else None


def uneven(name: str, count: int, ranks: int) -> str:
    """Why nothing splits: `heads=6 are not divisible by 4`."""
    return f"{name}={count} is not divisible by {ranks}"
