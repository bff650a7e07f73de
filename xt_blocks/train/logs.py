"""A run's numbers in TensorBoard or Weights & Biases, beside `metrics.jsonl`.

Owns which there are and how each is written to. Both are extras, and write into the run's folder: Weights & Biases
offline, unless its own WANDB_MODE says otherwise; `wandb sync` sends that later.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any, Protocol

from blockdsl.errors import UserError, did_you_mean

from .metrics import Record
from .run_folder import RunFolder


class Reporter(Protocol):
    """Receives every record as it is written; see `metrics` for what is in one."""

    def step(self, record: Record) -> None: ...

    def evaluation(self, record: Record) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Scalars in the run's folder `tensorboard`, for `tensorboard --logdir`."""

    def __init__(self, run: RunFolder, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # After a kill, what was written of later steps is not shown.
        self._writer: Any = SummaryWriter(str(run.path / "tensorboard"), purge_step=done + 1 if done else None)

    def step(self, record: Record) -> None:
        for name, value in record.items():
            if name != "step":
                self._writer.add_scalar(name, value, record["step"])

    evaluation = step

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of the same name in the run's folder `wandb`."""

    def __init__(self, run: RunFolder, done: int) -> None:
        import wandb

        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "blockdsl"),
            name=run.path.name,
            dir=str(run.path),
            config=asdict(run.settings),
            mode=os.environ.get("WANDB_MODE", "offline"),
        )

    def step(self, record: Record) -> None:
        self._run.log({name: value for name, value in record.items() if name != "step"}, step=record["step"])

    evaluation = step

    def close(self) -> None:
        self._run.finish()


LOGS: dict[str, type[TensorBoard] | type[WeightsAndBiases]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


class Reporters:
    """Several as one."""

    def __init__(self, *each: Reporter) -> None:
        self.each = each

    def step(self, record: Record) -> None:
        for one in self.each:
            one.step(record)

    def evaluation(self, record: Record) -> None:
        for one in self.each:
            one.evaluation(record)

    def close(self) -> None:
        for one in self.each:
            one.close()


def log_names(text: str | None) -> list[str]:
    """What --log says, as in "tensorboard,wandb". Raises UserError for another name, or a package that is missing."""
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    for name in names:
        if name not in LOGS:
            hint = did_you_mean(name, LOGS) or f"there are {' and '.join(LOGS)}"
            raise UserError(f"--log {name}: {hint}")
        if find_spec(name) is None:
            raise UserError(f"--log {name} needs {name}: pip install 'xt-blocks[{name}]'")
    return [*dict.fromkeys(names)]


def open_logs(text: str | None, run: RunFolder, done: int) -> list[Reporter]:
    """Those of `log_names`, for a run of which `done` steps are done."""
    return [LOGS[name](run, done) for name in log_names(text)]
