"""Schedules of a pipeline: how long its ranks wait, and how many micro-batches one holds at a time.

Owns formulas that assume equal stages, a backward pass of twice the forward pass's time, and messages that take none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UserError, did_you_mean

if TYPE_CHECKING:
    from .mesh import Mesh


@dataclass(frozen=True)
class PipelineSchedule:
    """A schedule of torch.distributed.pipelining.

    Attributes:
        stages: of each rank; more than one: a rank's stages are `ranks` apart.
        bubble: ranks, micro-batches → the share of a step in which a rank waits.
        in_flight: ranks, micro-batches, a rank's place → micro-batches whose activations of all its stages it holds.
        doc: what it is, and its source.
        shared_rows: it runs beside ranks along dp, fsdp or cp.
    """

    stages: int
    bubble: Callable[[int, int], float]
    in_flight: Callable[[int, int, int], float]
    doc: str
    shared_rows: bool = True


def _interleaved(ranks: int, micro_batches: int, place: int) -> float:
    """Of two stages each: those that a rank starts before its first backward pass, and one."""
    return min(2 * micro_batches, 2 * (ranks - place - 1) + ranks + 1) / 2


SCHEDULES = {
    "gpipe": PipelineSchedule(
        1,
        lambda p, m: (p - 1) / (m + p - 1),
        lambda p, m, place: m,
        "all forward passes, then all backward passes (arXiv:1811.06965)",
    ),
    "1f1b": PipelineSchedule(
        1,
        lambda p, m: (p - 1) / (m + p - 1),
        lambda p, m, place: min(m, p - place),
        "a forward and a backward pass in turn, so that a rank holds few micro-batches (PipeDream-Flush, "
        "arXiv:2006.09503)",
    ),
    "interleaved": PipelineSchedule(
        2,
        lambda p, m: (p - 1) / (2 * m + p - 1),
        _interleaved,
        "the same with two stages a rank, for half the bubble and twice the messages (arXiv:2104.04473)",
    ),
    "zero-bubble": PipelineSchedule(
        2,
        lambda p, m: (p - 1) / (6 * m + p - 1),
        lambda p, m, place: min(m, p),
        "interleaved, and gradients of weights are computed while a rank would wait (arXiv:2401.10241)",
        shared_rows=False,
    ),
}
"""By name, as `--schedule` takes them."""


def check_schedule(name: str, mesh: Mesh) -> None:
    """
    Raises:
        UserError: there is no such schedule, or it does not run on this mesh.
    """
    if name not in SCHEDULES:
        hint = did_you_mean(name, SCHEDULES)
        raise UserError(f"there is no schedule '{name}'; {hint or 'there are ' + ', '.join(SCHEDULES)}")
    if mesh.pp > 1 and mesh.dp * mesh.shards > 1 and not SCHEDULES[name].shared_rows:
        raise UserError(f"schedule={name} does not run along dp, fsdp or cp ({mesh}): take 1f1b or interleaved")
