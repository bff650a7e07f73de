"""The training loop.

Owns the order of things in a step, when to evaluate and when to save. A step is a pure function of the
weights, the optimiser's state, the settings and the step's number, and nothing else survives from step to
step; so on a CPU a resumed run gives bit for bit the numbers of one that was never stopped. (A GPU's
kernels may add in a different order from run to run.)

Leaves the screen to a `Reporter` and the files to `metrics`, `checkpoint` and `run_folder`.
"""

from __future__ import annotations

import time
from math import ceil, isfinite, log
from typing import Protocol

import torch
from torch import Tensor, nn

from blockdsl.errors import UserError

from .. import AutoregressiveWrapper, TransformerWrapper, auxiliary_losses
from . import checkpoint
from .data import Corpus, training_batch, validation_sequences
from .interrupt import StopRequest
from .metrics import MetricsLog, Record
from .optimizer import make_optimizer
from .run_folder import RunFolder
from .schedule import learning_rate
from ..runtime.seeds import seed_for
from .settings import TrainSettings

EVALUATIONS = 5
"""Evaluations in a run, after the one before its first step."""
MOST_STEPS_BETWEEN = 500
"""Steps between evaluations in a long run."""
EVALUATION_BYTES = 2**16
"""Bytes of the validation text that an evaluation predicts."""
EVALUATION_BATCH = 2**14
"""Bytes that go through the model at once in an evaluation."""
SECONDS_BETWEEN_SAVES = 60.0
MAX_GRADIENT_NORM = 1.0


class NotFinite(UserError):
    """A loss, or its gradient, that is no number: the run cannot go on as it is."""


class Reporter(Protocol):
    """Receives every record as it is written; see `metrics` for what is in one."""

    def step(self, record: Record) -> None: ...

    def evaluation(self, record: Record) -> None: ...


class Trainer:
    """One run in progress.

    Args:
        run: the folder it is kept in.
        model: tokens (batch, seq) -> logits (batch, seq, 256), already on the run's device.
        corpus: the text.
    """

    def __init__(self, run: RunFolder, model: TransformerWrapper, corpus: Corpus) -> None:
        self.run, self.model, self.corpus = run, model, corpus
        self.optimizer = make_optimizer(model, run.settings.lr)
        self.step_done, self.step_saved = 0, -1
        self.seconds = 0.0
        self._saved = time.monotonic()

    def restore(self) -> list[str]:
        """Continue from the last checkpoint that is whole; without any (a run killed early), from the beginning.

        Returns a line for each that is damaged; those are renamed, out of the way of the ones to come.
        Raises UserError when there are some and none can be read.
        """
        found = checkpoint.restore(self.run.checkpoints, self.model, self.optimizer)
        if found is None:
            return []
        self.step_done = self.step_saved = found.state["step"]
        self.seconds = float(found.state.get("seconds", 0))
        for path in found.damaged:
            checkpoint.set_aside(path)
        return found.notes()

    def train(self, reporter: Reporter, stop: StopRequest) -> None:
        """Run to the settings' last step, or to the end of the step at which `stop` is asked for, and save.

        Raises NotFinite when the loss or its gradient is not; the last checkpoint is from before that.
        """
        settings = self.run.settings
        cuda = [torch.device(settings.device)] if settings.device.startswith("cuda") else []
        with (
            torch.random.fork_rng(devices=cuda),
            MetricsLog(self.run.metrics, through=self.step_done if self.step_done else -1) as log,
        ):
            if self.step_done == 0:
                self._evaluate(log, reporter)
                self._save(log)
            while self.step_done < settings.steps and stop.signal is None:
                self._step(log, reporter)
                if self._evaluation_due():
                    self._evaluate(log, reporter)
                    self._save(log)
                elif time.monotonic() - self._saved > SECONDS_BETWEEN_SAVES:
                    self._check()
                    self._save(log)
            if self.step_saved != self.step_done:
                self._check()
                self._save(log)

    def _step(self, log: MetricsLog, reporter: Reporter) -> None:
        settings, started = self.run.settings, time.monotonic()
        rate = learning_rate(self.step_done, settings.steps, settings.lr)
        loss, further = train_step(self.model, self.optimizer, self.corpus, settings, self.step_done, rate)
        self.step_done += 1
        self.seconds += time.monotonic() - started
        record = {
            "step": self.step_done,
            "loss": loss,
            **{f"{name}_loss": value for name, value in further.items()},
            "lr": rate,
            "tokens": self.step_done * settings.batch * settings.seq_len,
            "seconds": round(self.seconds, 3),
        }
        log.write(record)
        reporter.step(record)

    def _evaluation_due(self) -> bool:
        steps = self.run.settings.steps
        between = min(MOST_STEPS_BETWEEN, ceil(steps / EVALUATIONS))
        return self.step_done == steps or self.step_done % between == 0

    def _evaluate(self, log: MetricsLog, reporter: Reporter) -> None:
        settings = self.run.settings
        bits = bits_per_byte(self.model, self.corpus.valid, settings.seq_len)
        _check_finite("validation loss", bits, self.step_done, settings)
        record = {"step": self.step_done, "val_bits_per_byte": bits}
        log.write(record)
        reporter.evaluation(record)

    def _check(self) -> None:
        """Raises NotFinite for weights that predict nothing; on one sequence, as a save comes often."""
        seq_len = self.run.settings.seq_len
        bits = bits_per_byte(self.model, self.corpus.valid[: seq_len + 1], seq_len)
        _check_finite("validation loss", bits, self.step_done, self.run.settings)

    def _save(self, log: MetricsLog) -> None:
        log.sync()
        state = {"seconds": self.seconds}
        checkpoint.save(self.run.checkpoints, self.step_done, self.model, self.optimizer, state)
        self.step_saved, self._saved = self.step_done, time.monotonic()


def train_step(
    model: TransformerWrapper,
    optimizer: torch.optim.Optimizer,
    corpus: Corpus,
    settings: TrainSettings,
    step: int,
    rate: float,
) -> tuple[float, dict[str, float]]:
    """One update of the weights; returns the batch's loss before it, in bits per byte, and what blocks added to it.

    Raises NotFinite, and leaves the weights as they were, when the loss or its gradient is not finite.
    """
    model.train()
    tokens = training_batch(corpus.train, settings.seq_len, settings.batch, settings.seed, step)
    torch.manual_seed(seed_for("dropout", settings.seed, step))
    with auxiliary_losses() as further:
        loss: Tensor = AutoregressiveWrapper(model)(tokens.to(settings.device))
    torch.autograd.backward(loss)
    norm = nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    added = {name: value.item() for name, value in further.by_name().items()}
    bits = (loss.item() - sum(added.values())) / log(2)
    _check_finite("loss", bits, step + 1, settings)
    _check_finite("gradient's norm", norm.item(), step + 1, settings)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return bits, added


def _check_finite(name: str, value: float, step: int, settings: TrainSettings) -> None:
    if not isfinite(value):
        raise NotFinite(f"the {name} is {value} at step {step}: try a lower --lr than {settings.lr:g}")


@torch.no_grad()
def bits_per_byte(model: TransformerWrapper, text: Tensor, seq_len: int) -> float:
    """The model's mean bits to code a byte of `text` (bytes,) uint8, over sequences spread across it that
    each start without context."""
    model.eval()
    wrapper = AutoregressiveWrapper(model)
    device = next(model.parameters()).device
    sequences = validation_sequences(text, seq_len, EVALUATION_BYTES)
    total = 0.0
    for chunk in torch.split(sequences, max(1, EVALUATION_BATCH // seq_len)):
        total += wrapper(chunk.to(device)).item() * len(chunk)
    return total / len(sequences) / log(2)
