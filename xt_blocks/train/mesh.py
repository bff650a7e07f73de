"""The engine of a run over many processes: `blockdsl train --mesh` under torchrun.

Owns checkpoints that are written beside the training and renamed when all ranks have written, which checkpoint all
ranks go on from, and which random numbers a rank draws. Leaves losses, gradients and shares to
`xt_blocks.distributed.job`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from blockdsl.errors import UserError
from blockdsl.plan.mesh import Mesh

from ..distributed import checkpoint as sharded
from ..distributed.job import Job
from ..distributed.reasons import reason
from . import checkpoint
from .answers import no_answer
from .checkpoint import Restored
from .engine import EVALUATION_BATCH, MAX_GRADIENT_NORM, StepResult, check_step
from .export import Export
from .files import sync
from .model import check_logits
from .optimizer import make_optimizer, optimizers_of
from .settings import TrainSettings

if TYPE_CHECKING:
    from blockdsl import BlockGraph

T = TypeVar("T")


class MeshEngine:
    """The engine of all ranks of a mesh, each of which makes one.

    Args:
        graph: the whole model's.
        mesh: as many ranks as there are processes.
        schedule: along pp, one of `distributed.pipeline.SCHEDULES`.
    """

    def __init__(
        self,
        graph: BlockGraph,
        settings: TrainSettings,
        mesh: Mesh,
        schedule: str = "1f1b",
    ) -> None:
        self.settings = settings
        self.job = Job(
            graph,
            mesh,
            seed=settings.seed,
            device=settings.device,
            precision=settings.precision,
            compile=settings.compile,
            accumulate=settings.accumulate,
            schedule=schedule,
        )
        if settings.optimizer == "muon" and mesh.size > mesh.pp:
            raise UserError(f"--optimizer muon updates whole matrices, and --mesh {mesh} shares them: take adamw")
        check_logits(self.job.logits, settings.num_tokens, settings.seq_len)
        self.optimizer = make_optimizer(nn.ModuleList(self.job.nets), settings.lr, settings.optimizer)
        self.each = optimizers_of(self.optimizer)
        self.aside = dist.new_group(backend="gloo")
        self.writer = ThreadPoolExecutor(1, "checkpoint")
        self.writing: Future[None] | None = None

    @property
    def main(self) -> bool:
        return self.job.ranks.main

    @property
    def devices(self) -> int:
        return self.job.mesh.size

    def step(self, batch: Tensor, step: int, rate: float) -> StepResult:
        self.job.seed(self.settings.seed, step)
        losses = self.job.backward(batch)
        result = StepResult(losses.cross_entropy, losses.added, self.job.clip(MAX_GRADIENT_NORM))
        check_step(result, step, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return result

    def loss(self, sequences: Tensor) -> float:
        at_once = max(1, EVALUATION_BATCH // (sequences.shape[1] - 1)) * self.job.mesh.data
        chunks = torch.split(sequences, at_once)
        return sum(self.job.loss(chunk).cross_entropy * len(chunk) for chunk in chunks) / len(sequences)

    def save(self, folder: Path, step: int, state: dict[str, Any], keep: Collection[int] = ()) -> None:
        self._written()
        final = checkpoint.at(folder, step)
        unfinished = folder / f"{final.name}.tmp-mesh"
        with _unwritten(final):
            self._agreed(partial(_emptied, unfinished) if self.main else _nothing)
        pieces = {name: piece.copied() for name, piece in self.job.contents(*self.each).items()}
        self.writing = self.writer.submit(self._write, unfinished, final, pieces, {**state, "step": step}, keep)

    def _write(
        self, unfinished: Path, final: Path, pieces: sharded.HeldTensors, state: dict[str, Any], keep: Collection[int]
    ) -> None:
        """In a thread, while training goes on: the files of all ranks, and by the first one what makes them whole."""

        def complete() -> None:
            (unfinished / checkpoint.STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")
            sync(unfinished / checkpoint.STATE)
            sync(unfinished)
            if not checkpoint.is_complete(final):
                shutil.rmtree(final, ignore_errors=True)
                os.rename(unfinished, final)
                sync(final.parent)
            checkpoint.prune(final.parent, keep)

        with _unwritten(final):
            sharded.write(unfinished, pieces, self.aside)
            self._agreed(complete if self.main else _nothing, self.aside)

    def _written(self) -> None:
        """Wait for the checkpoint that is being written. Raises UserError when it could not be."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()

    def load(self, folder: Path) -> Restored | None:
        self._written()
        damaged: dict[Path, str] = {}
        for path in reversed(self._numbered(folder)):
            try:
                state = self._agreed(partial(checkpoint.state_of, path))
                self._agreed(partial(self._fill, path))
            except UserError as error:
                damaged[path] = f"checkpoint {path} cannot be read: {error}"
                continue
            if self.main:
                for each in damaged:
                    checkpoint.set_aside(each)
            dist.barrier()
            return Restored(path, state, damaged)
        if damaged:
            raise UserError("\n  ".join([*damaged.values(), "no checkpoint is left: the run has to be started again"]))
        return None

    def _numbered(self, folder: Path) -> list[Path]:
        """As the first rank sees them, for all."""
        found: list[Any] = [checkpoint.checkpoints_in(folder) if self.main else None]
        dist.broadcast_object_list(found, src=0)
        return list(found[0])

    def _agreed(self, function: Callable[[], T], group: dist.ProcessGroup | None = None) -> T:
        """What the function returns here, once it has on all ranks; raises UserError on all with what any found
        wrong."""
        problem, result = None, None
        try:
            result = function()
        except Exception as error:  # bytes that are anything at all make their readers raise anything
            problem = reason(error)
        found: list[Any] = [None] * self.job.mesh.size
        dist.all_gather_object(found, problem, group)
        problems = {rank: each for rank, each in enumerate(found) if each is not None}
        if not problems:
            return cast("T", result)
        rank, first = next(iter(problems.items()))
        alike = len({*problems.values()}) == 1 and len(problems) == len(found)
        raise UserError(first if alike else f"rank {rank}: {first}")

    def _fill(self, path: Path) -> None:
        """Weights and the optimiser's state from a checkpoint."""
        if checkpoint.is_sharded(path):
            self.job.make_states(sharded.shapes(path), *self.each)
            sharded.read(path, self.job.contents(*self.each))
        else:
            self._read_whole(path)
        if not all(bool(r.part.isfinite().all()) for piece in self.job.contents().values() for r in piece.rectangles):
            raise ValueError("its weights are not finite")

    def _read_whole(self, path: Path) -> None:
        """From the files of one process, of which each rank reads what it holds."""
        saved = torch.load(path / checkpoint.OPTIMIZER, map_location="cpu", weights_only=True, mmap=True)
        tensors = {f"{sharded.STATE}{name}": tensor for name, tensor in checkpoint.states_by_name(saved).items()}
        self.job.make_states({name: tensor.shape for name, tensor in tensors.items()}, *self.each)
        pieces = self.job.contents(*self.each)
        weights = {n.removeprefix(sharded.WEIGHT): p for n, p in pieces.items() if n.startswith(sharded.WEIGHT)}
        sharded.read_safetensors(path / checkpoint.WEIGHTS, weights)
        sharded.read_tensors(tensors, {n: p for n, p in pieces.items() if n.startswith(sharded.STATE)})

    def export(self, source: Path, folder: Path) -> None:
        self._written()
        writing = self._agreed(lambda: Export(source, folder, self.job.graph, self.settings.end))
        self._agreed(lambda: writing.write(self.job.ranks.rank, self.job.mesh.size))
        self._agreed(writing.publish if self.main else _nothing)

    def agree(self, wish: bool) -> bool:
        wishes = torch.tensor(float(wish), device=self.job.ranks.device, dtype=torch.float32)
        dist.all_reduce(wishes, dist.ReduceOp.MAX)
        return bool(wishes.item())

    def close(self) -> None:
        self._written()
        self.writer.shutdown()


def _nothing() -> None:
    """What the others do while the first rank does something for all."""


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


@contextmanager
def _unwritten(path: Path) -> Iterator[None]:
    """Says of an error within which checkpoint it is of, unless it is of a rank that has ended."""
    try:
        yield
    except Exception as error:
        if no_answer(error):
            raise
        raise UserError(f"checkpoint {path} cannot be written: {reason(error)}") from error
