"""The mesh: how many ranks stand along each axis, and where a rank stands.

Owns the axes' names and order and the text `pp=2,tp=4`. What a rank holds is in `memory`, what it sends in `traffic`.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, fields

from ..errors import UserError, did_you_mean, shortened
from ..registry.options import whole

AXES = {
    "pp": "pipeline: consecutive stages of the stack",
    "dp": "data: copies of the model, each with rows of its own",
    "fsdp": "sharded data: as dp, and each rank keeps a share of every parameter, gradient and optimiser state",
    "cp": "context: a share of the tokens of each row, and of parameters as under fsdp",
    "tp": "tensor: a share of the heads, hidden features or experts of each block",
}
"""Outermost first: neighbours along the last are ranks that follow each other."""

_ELSEWHERE = {
    "pipeline": "pp",
    "data": "dp",
    "ddp": "dp",
    "replicate": "dp",
    "shard": "fsdp",
    "zero": "fsdp",
    "context": "cp",
    "sequence": "cp",
    "tensor": "tp",
    "model": "tp",
    "mp": "tp",
}
"""Names that others give these axes."""


@dataclass(frozen=True)
class Mesh:
    """So many ranks along each axis of `AXES`; `Mesh(pp=2, tp=4)` has 8.

    Raises:
        UserError: a size is no whole number of at least 1.
    """

    pp: int = 1
    dp: int = 1
    fsdp: int = 1
    cp: int = 1
    tp: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, whole(f"mesh axis {field.name}", getattr(self, field.name), least=1))

    @classmethod
    def parse(cls, text: str) -> Mesh:
        """The mesh that `pp=2,tp=4` says; axes that it leaves out have one rank.

        Raises:
            UserError: there is no such axis, it is said twice, or its size is no whole number of at least 1.
        """
        sizes: dict[str, int] = {}
        for part in text.replace(",", " ").split():
            axis, equals, size = part.partition("=")
            if axis not in AXES:
                raise UserError(f"mesh '{shortened(text)}': {_unknown(axis)}")
            if axis in sizes:
                raise UserError(f"mesh '{shortened(text)}': {axis} is said twice")
            if not equals or not size.isdecimal() or int(size) < 1:
                raise UserError(f"mesh '{shortened(text)}': {axis} needs a number of ranks, as in {axis}=2")
            sizes[axis] = int(size)
        return cls(**sizes)

    def __str__(self) -> str:
        """`pp=2,tp=4`: the axes of more than one rank; `dp=1` where none has."""
        return ",".join(f"{axis}={getattr(self, axis)}" for axis in self.axes) or "dp=1"

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return math.prod(astuple(self))

    @property
    def axes(self) -> tuple[str, ...]:
        """Those of more than one rank, outermost first."""
        return tuple(axis for axis in AXES if getattr(self, axis) > 1)

    @property
    def data(self) -> int:
        """Shares of the batch: ranks along dp and fsdp."""
        return self.dp * self.fsdp

    @property
    def shards(self) -> int:
        """Ranks that have a share of each parameter: those along fsdp and cp."""
        return self.fsdp * self.cp

    def place(self, rank: int) -> dict[str, int]:
        """A rank's index along each of the five axes; the last axis varies fastest.

        Raises:
            UserError: there is no such rank.
        """
        if not 0 <= rank < self.size:
            raise UserError(f"mesh {self} has ranks 0 to {self.size - 1}, not {rank}")
        found = {}
        for axis in reversed(AXES):
            rank, found[axis] = divmod(rank, getattr(self, axis))
        return {axis: found[axis] for axis in AXES}


def _unknown(axis: str) -> str:
    if axis in ("ep", "expert", "experts"):
        return f"there is no axis '{axis}': tp splits experts as it does heads"
    near = f"did you mean '{_ELSEWHERE[axis]}'?" if axis in _ELSEWHERE else did_you_mean(axis, AXES)
    return f"there is no axis '{shortened(axis)}'; {near or 'the axes are ' + ', '.join(AXES)}"
