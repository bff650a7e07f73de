"""The engine of a run over many processes: `blockdsl train --mesh` under torchrun.

Owns checkpoints that are written beside the training and renamed when all ranks have written, which checkpoint all
ranks go on from, and which random numbers a rank draws. Leaves losses, gradients and shares to
`xt_blocks.distributed.job`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from blockdsl.errors import UserError
from blockdsl.plan.mesh import Mesh

from ..distributed import checkpoint as sharded
from ..distributed.job import Job
from . import checkpoint
from .checkpoint import Restored
from .engine import EVALUATION_BATCH, MAX_GRADIENT_NORM, StepResult, check_step
from .files import sync
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
        if settings.optimizer == "muon" and mesh.size > mesh.pp:
            raise UserError(f"--optimizer muon updates whole matrices, and --mesh {mesh} shares them: take adamw")
        if self.job.pipeline is None:  # along pp no rank has logits and tokens
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
        partial = folder / f"{final.name}.tmp-mesh"
        if self.main:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        pieces = {name: piece.copied() for name, piece in self.job.contents(*self.each).items()}
        dist.barrier()
        self.writing = self.writer.submit(self._write, partial, final, pieces, {**state, "step": step}, keep)

    def _write(
        self, partial: Path, final: Path, pieces: sharded.HeldTensors, state: dict[str, Any], keep: Collection[int]
    ) -> None:
        """In a thread, while training goes on: the files of all ranks, and by the first one what makes them whole."""
        try:
            sharded.write(partial, pieces, self.aside)
            if self.main:
                (partial / checkpoint.STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")
                sync(partial / checkpoint.STATE)
                sync(partial)
                shutil.rmtree(final, ignore_errors=True)
                os.rename(partial, final)
                sync(final.parent)
                checkpoint.prune(final.parent, keep)
        except Exception as error:
            raise UserError(f"checkpoint {final} cannot be written: {sharded.reasons(error)}") from error

    def _written(self) -> None:
        """Wait for the checkpoint that is being written. Raises UserError when it could not be."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()

    def load(self, folder: Path) -> Restored | None:
        self._written()
        damaged: dict[Path, str] = {}
        for path in reversed(self._numbered(folder)):
            state, problem = self._read(path)
            if problem is None:
                if self.main:
                    for each in damaged:
                        checkpoint.set_aside(each)
                dist.barrier()
                return Restored(path, state, damaged)
            damaged[path] = f"checkpoint {path} cannot be read: {problem}"
        if damaged:
            raise UserError("\n  ".join([*damaged.values(), "no checkpoint is left: the run has to be started again"]))
        return None

    def _numbered(self, folder: Path) -> list[Path]:
        """As the first rank sees them, for all."""
        found: list[Any] = [checkpoint.checkpoints_in(folder) if self.main else None]
        dist.broadcast_object_list(found, src=0)
        return list(found[0])

    def _read(self, path: Path) -> tuple[dict[str, Any], str | None]:
        """What was saved beside the weights, and what any rank found wrong."""
        state: dict[str, Any] = {}
        problem = None
        try:
            state = json.loads((path / checkpoint.STATE).read_text(encoding="utf-8"))
            if checkpoint.is_sharded(path):
                self.job.load(path, *self.each)
            else:
                self._read_whole(path)
            if not all(bool(p.isfinite().all()) for name, p in self._parts()):
                raise ValueError("its weights are not finite")
        except Exception as error:
            problem = sharded.reasons(error)
        found: list[Any] = [None] * self.job.mesh.size
        dist.all_gather_object(found, problem)
        return state, next((f"rank {rank}: {each}" for rank, each in enumerate(found) if each is not None), None)

    def _parts(self) -> list[tuple[str, Tensor]]:
        return [(n, r.part) for n, piece in self.job.contents().items() for r in piece.rectangles]

    def _read_whole(self, path: Path) -> None:
        """From the files of one process, of which each rank reads what it holds."""
        saved = torch.load(path / checkpoint.OPTIMIZER, map_location="cpu", weights_only=True, mmap=True)
        tensors = {f"{sharded.STATE}{name}": tensor for name, tensor in checkpoint.states_by_name(saved).items()}
        self.job.make_states({name: tensor.shape for name, tensor in tensors.items()}, *self.each)
        pieces = self.job.contents(*self.each)
        weights = {n.removeprefix(sharded.WEIGHT): p for n, p in pieces.items() if n.startswith(sharded.WEIGHT)}
        sharded.read_safetensors(path / checkpoint.WEIGHTS, weights)
        sharded.read_tensors(tensors, {n: p for n, p in pieces.items() if n.startswith(sharded.STATE)})

    def agree(self, wish: bool) -> bool:
        wishes = torch.tensor(float(wish), device=self.job.ranks.device, dtype=torch.float32)
        dist.all_reduce(wishes, dist.ReduceOp.MAX)
        return bool(wishes.item())

    def close(self) -> None:
        self._written()
        self.writer.shutdown()
