"""What a `Trainer` drives: the model, its optimiser and their checkpoints, wherever they are.

Owns the protocol, and the engine of one process. A step is a pure function of the weights, the optimiser's state, the
settings and the step's number; an engine draws nothing from random numbers that it did not seed for the step. Leaves
what a batch is, when to evaluate and when to save to `loop`.
"""

from __future__ import annotations

from collections.abc import Collection
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from blockdsl.errors import UserError

from .. import AutoregressiveWrapper, TransformerWrapper, auxiliary_losses
from ..distributed.reasons import reason
from ..kernels.batch_rows import BatchRows, rows_of_batch
from ..runtime.compiled import compile_blocks
from ..runtime.seeds import seed_for
from . import checkpoint
from .checkpoint import Restored
from .export import Export
from .optimizer import make_optimizer
from .settings import TrainSettings

EVALUATION_BATCH = 2**14
"""Tokens that go through the model at once in an evaluation."""
MAX_GRADIENT_NORM = 1.0


class NotFinite(UserError):
    """A loss, or its gradient, that is no number: the run cannot go on as it is."""


class StepResult(NamedTuple):
    """What a step was before its update.

    Attributes:
        loss: in nats, the mean over all tokens of the whole batch, without what blocks add to it.
        added: what they add, by name, as balance_loss.
        norm: the gradient's, before it is clipped.
    """

    loss: float
    added: dict[str, float]
    norm: float


class Engine(Protocol):
    """One model in training, on one process or on all of a job, each of which makes the same calls in the same order.

    Every method returns the same on all processes.
    """

    @property
    def main(self) -> bool:
        """Whether this process shows progress and writes what is beside the checkpoints."""

    @property
    def devices(self) -> int:
        """How many compute a step together."""

    def step(self, batch: Tensor, step: int, rate: float) -> StepResult:
        """One update of the weights.

        Args:
            batch: (batch, seq + 1) int64, all rows on every process, which takes its own.
            step: 0 for the first; what is drawn depends on it.
            rate: of learning.

        Raises NotFinite, and leaves the weights as they were, when the loss or its gradient is not finite.
        """

    def loss(self, sequences: Tensor) -> float:
        """In nats, the mean over all tokens that `sequences`, (rows, seq + 1) int64, predict; without gradients."""

    def save(self, folder: Path, step: int, state: dict[str, Any], keep: Collection[int] = ()) -> None:
        """Write the checkpoint of `step` into `folder`, with `state`, which JSON can say; it is whole, or not there.

        The one before stays too, and those of the steps `keep`. Raises UserError when the disk refuses.
        """

    def load(self, folder: Path) -> Restored | None:
        """Read the newest checkpoint of `folder` that is whole; None when there is none at all.

        Damaged ones are renamed, out of the way of the ones to come. Raises UserError when none can be read.
        """

    def export(self, source: Path, folder: Path) -> None:
        """Write the weights of a checkpoint into a folder that has the graph, as `save_pretrained` does.

        Raises UserError when the disk refuses.
        """

    def agree(self, wish: bool) -> bool:
        """Whether any process wishes so, as to stop after a signal that reached only one."""

    def close(self) -> None:
        """Let go of what the engine holds: processes, threads that still write."""


class LocalEngine:
    """The engine of one process.

    Args:
        model: tokens (batch, seq) -> logits (batch, seq, num_tokens), already on the settings' device.
    """

    main, devices = True, 1

    def __init__(self, model: TransformerWrapper, settings: TrainSettings) -> None:
        self.model, self.settings = model, settings
        self.device = torch.device(settings.device)
        if settings.compile:
            compile_blocks(model)
        self.optimizer = make_optimizer(model, settings.lr, settings.optimizer)

    def step(self, batch: Tensor, step: int, rate: float) -> StepResult:
        self.model.train()
        seed, batch = seed_for("dropout", self.settings.seed, step), batch.to(self.device)
        torch.manual_seed(seed)
        nats = torch.zeros((), device=self.device, dtype=torch.float32)
        added: dict[str, float] = {}
        for places in torch.arange(len(batch), device="cpu", dtype=torch.int64).tensor_split(self.settings.accumulate):
            own = places.tolist()
            rows, share = batch[own], len(own) / len(batch)  # of the tokens too, as rows are equally long
            with auxiliary_losses() as further, precision(self.settings), rows_of_batch(BatchRows(own, seed)):
                loss: Tensor = AutoregressiveWrapper(self.model)(rows) * share
            torch.autograd.backward(loss)
            nats += loss.detach()
            for name, value in further.by_name().items():
                added[name] = added.get(name, 0.0) + value.item() * share
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        result = StepResult(nats.item() - sum(added.values()), added, norm.item())
        check_step(result, step, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return result

    @torch.no_grad()
    def loss(self, sequences: Tensor) -> float:
        self.model.eval()
        wrapper, total = AutoregressiveWrapper(self.model), 0.0
        for chunk in torch.split(sequences, max(1, EVALUATION_BATCH // (sequences.shape[1] - 1))):
            with precision(self.settings):
                total += wrapper(chunk.to(self.device)).item() * len(chunk)
        return total / len(sequences)

    def save(self, folder: Path, step: int, state: dict[str, Any], keep: Collection[int] = ()) -> None:
        checkpoint.save(folder, step, self.model, self.optimizer, state, keep)

    def load(self, folder: Path) -> Restored | None:
        found = checkpoint.restore(folder, self.model, self.optimizer)
        for path in found.damaged if found else ():
            checkpoint.set_aside(path)
        return found

    def export(self, source: Path, folder: Path) -> None:
        try:
            writing = Export(source, folder, self.model.graph, self.settings.end)
            writing.write()
            writing.publish()
        except OSError as error:
            raise UserError(reason(error)) from error

    def agree(self, wish: bool) -> bool:
        return wish

    def close(self) -> None:
        pass


def precision(settings: TrainSettings) -> torch.autocast:
    """A context in which passes compute as `settings` say; weights, gradients and the optimiser stay float32."""
    device = torch.device(settings.device).type
    return torch.autocast(device, torch.bfloat16, enabled=settings.precision == "bf16")


def check_step(result: StepResult, step: int, settings: TrainSettings) -> None:
    """Raises NotFinite unless the loss and the gradient's norm are; `step` is 0 for the first."""
    check_finite("loss", result.loss, step + 1, settings)
    check_finite("gradient's norm", result.norm, step + 1, settings)


def check_finite(name: str, value: float, step: int, settings: TrainSettings) -> None:
    """Raises NotFinite for a `value` that is no number; `step` is 1 for the first."""
    if not isfinite(value):
        raise NotFinite(f"the {name} is {value} at step {step}: try a lower --lr than {settings.lr:g}")
