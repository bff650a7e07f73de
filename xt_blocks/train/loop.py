"""The training loop.

Owns the order of things, when to evaluate and when to save. Nothing but the weights and the optimiser's state, which an
`Engine` has, survives from step to step; so on a CPU a resumed run gives bit for bit the numbers of one that was never
stopped. (A GPU's kernels may add in a different order from run to run.)

Leaves the step to `engine`, the screen to a `Reporter` and the files to `metrics`, `checkpoint` and `run_folder`.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from math import ceil, log

import torch

from . import checkpoint
from .best import Best
from .data import Data
from .device import memory_in_use
from .engine import Engine, check_finite
from .interrupt import StopRequest
from .logs import Reporter
from .metrics import MetricsLog, Record
from .run_folder import RunFolder
from .schedule import learning_rate

EVALUATIONS = 5
"""Evaluations in a run, after the one before its first step."""
MOST_STEPS_BETWEEN = 500
"""Steps between evaluations in a long run."""
EVALUATION_TOKENS = 2**16
"""Held-out tokens that an evaluation predicts."""
SECONDS_BETWEEN_SAVES = 60.0


class Trainer:
    """One run in progress.

    Args:
        run: the folder it is kept in.
        engine: the model and its optimiser.
        corpus: what it trains on.
        peak: FLOP/s of the engine's devices together, at best; None: the share of it is not told.
    """

    def __init__(self, run: RunFolder, engine: Engine, corpus: Data, peak: float | None = None) -> None:
        self.run, self.engine, self.corpus, self.peak = run, engine, corpus, peak
        settings = run.settings
        # The backward pass takes twice as many; what is computed again does not count (arXiv:2204.02311, appendix B).
        self.flops = 3 * run.graph().flops(settings.seq_len, settings.batch)
        self.step_done, self.step_saved = 0, -1
        self.seconds = 0.0
        self.best = Best()
        self._saved = time.monotonic()

    def restore(self) -> list[str]:
        """Continue from the last checkpoint that is whole; without any (a run killed early), from the beginning.

        Returns a line for each that is damaged. Raises UserError when there are some and none can be read.
        """
        found = self.engine.load(self.run.checkpoints)
        if found is None:
            return []
        self.step_done = self.step_saved = found.state["step"]
        self.seconds = float(found.state.get("seconds", 0))
        self.best = Best.from_state(found.state.get("best"))
        return found.notes()

    def train(self, reporter: Reporter, stop: StopRequest) -> None:
        """Run to the settings' last step, to where their patience ends, or to the end of the step at which `stop` is
        asked for, and save.

        Raises NotFinite when the loss or its gradient is not; the last checkpoint is from before that.
        """
        settings, through = self.run.settings, self.step_done if self.step_done else -1
        cuda = [torch.device(settings.device)] if settings.device.startswith("cuda") else []
        written = MetricsLog(self.run.metrics, through) if self.engine.main else nullcontext()
        with torch.random.fork_rng(devices=cuda), written as metrics:
            if self.step_done == 0:
                self._evaluate(metrics, reporter)
                self._save(metrics)
            while not self.finished and not self.engine.agree(stop.signal is not None):
                self._step(metrics, reporter)
                if self._evaluation_due():
                    self._evaluate(metrics, reporter)
                    self._save(metrics)
                elif self.engine.agree(self.engine.main and time.monotonic() - self._saved > SECONDS_BETWEEN_SAVES):
                    self._check()
                    self._save(metrics)
            if self.step_saved != self.step_done:
                self._check()
                self._save(metrics)

    def export(self) -> None:
        """Write the weights of the last checkpoint, or of the best where the settings have patience, into the run's
        folder, as `save_pretrained` does. Raises UserError when the disk refuses."""
        step = self.step_saved if self.run.settings.patience is None else self.best.step
        self.engine.export(checkpoint.at(self.run.checkpoints, step), self.run.path)

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or the settings' patience has ended."""
        return self.step_done >= self.run.settings.steps or self.stopped_early

    @property
    def stopped_early(self) -> bool:
        """Whether so many evaluations as the settings say were no better than one before them."""
        patience = self.run.settings.patience
        return patience is not None and self.best.since >= patience

    def _step(self, metrics: MetricsLog | None, reporter: Reporter) -> None:
        settings, started = self.run.settings, time.monotonic()
        rate = learning_rate(self.step_done, settings.steps, settings.lr)
        batch = self.corpus.batch(settings.seq_len, settings.batch, settings.seed, self.step_done)
        result = self.engine.step(batch, self.step_done, rate)
        self.step_done += 1
        took = time.monotonic() - started
        self.seconds += took
        if metrics is None:
            return
        record: Record = {
            "step": self.step_done,
            "loss": result.loss / self.corpus.nats,
            **{f"{name}_loss": value for name, value in result.added.items()},
            "lr": rate,
            "grad_norm": result.norm,
            "tokens": self.step_done * settings.batch * settings.seq_len,
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(settings.batch * settings.seq_len / took, 1),
        }
        if self.peak is not None:
            record["mfu"] = self.flops / took / self.peak
        if (memory := memory_in_use(settings.device)) is not None:
            record["memory"] = memory
        metrics.write(record)
        reporter.step(record)

    def _evaluation_due(self) -> bool:
        steps = self.run.settings.steps
        between = self.run.settings.val_every or min(MOST_STEPS_BETWEEN, ceil(steps / EVALUATIONS))
        return self.step_done == steps or self.step_done % between == 0

    def _evaluate(self, metrics: MetricsLog | None, reporter: Reporter) -> None:
        settings = self.run.settings
        bits = bits_per_byte(self.engine, self.corpus, settings.seq_len)
        check_finite("validation loss", bits, self.step_done, settings)
        self.best.see(self.step_done, bits)
        record = {"step": self.step_done, "val_bits_per_byte": bits}
        if self.corpus.unit == "nats/token":
            record["val_loss"] = bits * log(2) * self.corpus.bytes_per_token
        if metrics is not None:
            metrics.write(record)
            reporter.evaluation(record)

    def _check(self) -> None:
        """Raises NotFinite for weights that predict nothing; on one sequence, as a save comes often."""
        seq_len = self.run.settings.seq_len
        bits = bits_per_byte(self.engine, self.corpus, seq_len, budget=seq_len)
        check_finite("validation loss", bits, self.step_done, self.run.settings)

    def _save(self, metrics: MetricsLog | None) -> None:
        if metrics is not None:
            metrics.sync()
        keep = () if self.run.settings.patience is None else (self.best.step,)
        state = {"seconds": self.seconds, "best": self.best.to_state()}
        self.engine.save(self.run.checkpoints, self.step_done, state, keep)
        self.step_saved, self._saved = self.step_done, time.monotonic()


def bits_per_byte(engine: Engine, corpus: Data, seq_len: int, budget: int = EVALUATION_TOKENS) -> float:
    """The model's mean bits to code a byte of what is held out, over sequences spread across it that each start without
    context and predict at most about `budget` tokens."""
    return engine.loss(corpus.validation(seq_len, budget)) / log(2) / corpus.bytes_per_token
