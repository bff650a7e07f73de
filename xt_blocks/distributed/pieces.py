"""Which rectangles of whole tensors a rank holds, whatever the mesh: rows of FSDP, of the part that tensor parallelism
leaves, of one stage's blocks. Checkpoints read and write these under the names and shapes of one process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from blockdsl.registry.split import Cut

from .shard import first_row, local_part


@dataclass(frozen=True)
class Rectangle:
    """A part of a whole tensor.

    Attributes:
        offset: where it begins in the whole one, along each axis.
        part: a view of what this rank holds; writing there changes it.
        first: no rank before this one along tp holds the same.
    """

    offset: tuple[int, ...]
    part: Tensor
    first: bool = True

    def of(self, whole: Tensor) -> Tensor:
        """The same part of a whole tensor, or of what can be indexed like one."""
        return whole[tuple(slice(at, at + size) for at, size in zip(self.offset, self.part.shape, strict=True))]


@dataclass(frozen=True)
class HeldTensor:
    """What a rank holds of one tensor; perhaps nothing.

    Attributes:
        shape: of the whole tensor.
        rectangles: none of which overlap.
    """

    shape: torch.Size
    rectangles: tuple[Rectangle, ...]

    @classmethod
    def of(cls, tensor: Tensor, shape: torch.Size, cut: Cut | None = None, ranks: int = 1, rank: int = 0) -> HeldTensor:
        """
        Args:
            tensor: as the rank has it, perhaps sharded.
            shape: of the whole one.
            cut: how it is cut over the ranks of tensor parallelism; None: each has all of it.
            ranks, rank: of tensor parallelism.
        """
        part = local_part(tensor.detach())
        if not shape:
            return cls(shape, (Rectangle((), part, rank == 0),))
        return cls(shape, tuple(_rectangles(part, first_row(tensor), shape, cut or Cut(shared=(ranks,)), ranks, rank)))

    def copied(self) -> HeldTensor:
        """The same values on the CPU, in memory of their own."""
        return HeldTensor(
            self.shape, tuple(Rectangle(r.offset, r.part.to("cpu", copy=True), r.first) for r in self.rectangles)
        )


def _rectangles(part: Tensor, row: int, shape: torch.Size, cut: Cut, ranks: int, rank: int) -> Iterator[Rectangle]:
    """Of `part`, whose first row is the row `row` of what a rank of tensor parallelism holds."""
    rest = [0] * (len(shape) - 1)
    for held in cut.held(shape[cut.axis], ranks, rank):
        if cut.axis == 0:
            first, last = max(held.local.start, row), min(held.local.stop, row + len(part))
            if first < last:
                offset = (held.whole.start + first - held.local.start, *rest)
                yield Rectangle(offset, part[first - row : last - row], held.first)
        elif part.numel():
            offset = (row, *rest[: cut.axis - 1], held.whole.start, *rest[cut.axis :])
            own = part.narrow(cut.axis, held.local.start, held.local.stop - held.local.start)
            yield Rectangle(offset, own, held.first)
