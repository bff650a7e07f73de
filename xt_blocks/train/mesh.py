"""The engine of a run over many processes: `blockdsl train --mesh` under torchrun.

Owns checkpoints that are written beside the training and renamed when all ranks have written. Leaves reading them to
`mesh_checkpoint`, and losses, gradients and shares to `xt_blocks.distributed.job`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from blockdsl.errors import UserError
from blockdsl.files import sync
from blockdsl.plan.mesh import Mesh

from ..distributed import checkpoint as sharded
from ..distributed.job import Job
from ..distributed.muon import SharedMuon
from ..distributed.reasons import reason
from . import checkpoint
from .answers import no_answer
from .checkpoint import Restored
from .engine import EVALUATION_BATCH, MAX_GRADIENT_NORM, StepResult, check_step
from .export import Export
from .mesh_checkpoint import agreed, nothing, restore_on_ranks
from .model import check_logits
from .optimizer import make_optimizer, optimizers_of
from .settings import TrainSettings

if TYPE_CHECKING:
    from blockdsl import BlockGraph


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
        self.job.check_batch(settings.batch, settings.seq_len)
        check_logits(self.job.logits, settings.num_tokens, settings.seq_len)
        nets, muon = nn.ModuleList(self.job.nets), partial(SharedMuon, self.job)
        self.optimizer = make_optimizer(nets, settings.lr, settings.optimizer, muon)
        self.each = optimizers_of(self.optimizer)
        self.parent = os.getppid()
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
            agreed(partial(_emptied, unfinished) if self.main else nothing)
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
            agreed(complete if self.main else nothing, self.aside)

    def _written(self) -> None:
        """Wait for the checkpoint that is being written. Raises UserError when it could not be."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()

    def load(self, folder: Path) -> Restored | None:
        self._written()
        found = restore_on_ranks(folder, self.job, self.each)
        if self.main:
            for path in found.damaged if found else ():
                checkpoint.set_aside(path)
        dist.barrier()
        return found

    def export(self, source: Path, folder: Path) -> None:
        self._written()
        writing = agreed(lambda: Export(source, folder, self.job.graph, self.settings.end))
        agreed(lambda: writing.write(self.job.ranks.rank, self.job.mesh.size))
        agreed(writing.publish if self.main else nothing)

    def agree(self, wish: bool) -> bool:
        alone = os.getppid() != self.parent  # torchrun was killed, and may have been started again
        wishes = torch.tensor(float(wish or alone), device=self.job.ranks.device, dtype=torch.float32)
        dist.all_reduce(wishes, dist.ReduceOp.MAX)
        return bool(wishes.item())

    def close(self) -> None:
        self._written()
        self.writer.shutdown()


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
