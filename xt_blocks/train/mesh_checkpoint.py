"""Checkpoints read by all ranks of a job, each of which takes what it holds, whatever mesh or process wrote them.

Owns that the ranks agree on which one is whole. Leaves what a rank holds to `xt_blocks.distributed`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
import torch.distributed as dist

from blockdsl.errors import UserError

from ..distributed import checkpoint as sharded
from ..distributed.reasons import reason
from . import checkpoint
from .checkpoint import Restored

if TYPE_CHECKING:
    from ..distributed.job import Job

T = TypeVar("T")
Optimizers = Sequence[torch.optim.Optimizer]


def restore_on_ranks(folder: Path, job: Job, optimizers: Optimizers = ()) -> Restored | None:
    """Read the newest checkpoint of `folder` that all ranks find whole; None when there is none at all.

    Raises UserError when there are some and none can be read.
    """
    found: list[Any] = [checkpoint.checkpoints_in(folder) if job.ranks.main else None]
    dist.broadcast_object_list(found, src=0)
    return checkpoint.newest(found[0], lambda path: load_on_ranks(path, job, optimizers))


def load_on_ranks(path: Path, job: Job, optimizers: Optimizers = ()) -> dict[str, Any]:
    """Read weights and the optimisers' state; returns what was saved beside them, with "step".

    Raises UserError on all ranks when one finds it damaged, or of another model; the job then holds some of it.
    """
    try:
        state = agreed(partial(checkpoint.state_of, path))
        agreed(partial(_fill, path, job, optimizers))
    except UserError as error:
        raise UserError(f"checkpoint {path} cannot be read: {error}") from error
    return state


def agreed(function: Callable[[], T], group: dist.ProcessGroup | None = None) -> T:
    """What the function returns here, once it has on all ranks.

    Raises UserError on all, with what any found wrong.
    """
    problem, result = None, None
    try:
        result = function()
    except Exception as error:  # bytes that are anything at all make their readers raise anything
        problem = reason(error)
    found: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, problem, group)
    problems = {rank: each for rank, each in enumerate(found) if each is not None}
    if not problems:
        return cast("T", result)
    rank, first = next(iter(problems.items()))
    alike = len({*problems.values()}) == 1 and len(problems) == len(found)
    raise UserError(first if alike or first.startswith("rank ") else f"rank {rank}: {first}")


def nothing() -> None:
    """What the others do while the first rank does something for all."""


def _fill(path: Path, job: Job, optimizers: Optimizers) -> None:
    if checkpoint.is_sharded(path):
        job.make_states(sharded.shapes(path), *optimizers)
        sharded.read(path, job.contents(*optimizers))
    else:
        _fill_from_one(path, job, optimizers)
    if not all(bool(r.part.isfinite().all()) for piece in job.contents().values() for r in piece.rectangles):
        raise ValueError("its weights are not finite")


def _fill_from_one(path: Path, job: Job, optimizers: Optimizers) -> None:
    """From the files of one process, of which each rank reads what it holds."""
    pieces = job.contents()
    sharded.read_safetensors(path / checkpoint.WEIGHTS, {n.removeprefix(sharded.WEIGHT): p for n, p in pieces.items()})
    if not optimizers:
        return
    saved = torch.load(path / checkpoint.OPTIMIZER, map_location="cpu", weights_only=True, mmap=True)
    tensors = {f"{sharded.STATE}{name}": tensor for name, tensor in checkpoint.states_by_name(saved).items()}
    job.make_states({name: tensor.shape for name, tensor in tensors.items()}, *optimizers)
    pieces = job.contents(*optimizers)
    sharded.read_tensors(tensors, {n: p for n, p in pieces.items() if n.startswith(sharded.STATE)})
