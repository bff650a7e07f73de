"""The numbers of a run, one JSON object a line, in `metrics.jsonl`.

Owns writing, reading and cutting that file. A training line has

    step               1 for the first
    loss               of that step's batch: bits per byte, or nats per token of a run on tokens
    lr, grad_norm      the learning rate; the gradient's norm before it is clipped
    tokens, seconds    trained on so far; of training so far
    tokens_per_second  of this step
    mfu                share of the devices' peak: the model's FLOPs, without any computed again (arXiv:2204.02311)
    memory             bytes at most so far, of a GPU or of the process

and what blocks added to the loss where they did, as balance_loss and router_z_loss. An evaluation line has step and
val_bits_per_byte, and of a run on tokens val_loss, in nats per token. Leaves what the numbers mean to the loop.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from blockdsl.files import naming, write_whole

Record = dict[str, Any]

MEASURED = ("seconds", "tokens_per_second", "mfu", "memory")
"""What differs from run to run of the same settings."""


class MetricsLog:
    """Appends records to a metrics file; each line reaches the file before `write` returns."""

    def __init__(self, path: Path, through: int) -> None:
        """Opens `path`, keeping only records of steps up to `through`: those after the checkpoint a run
        resumes from will be written again."""
        kept = [record for record in read_metrics(path) if record["step"] <= through]
        write_whole(path, "".join(_line(record) for record in kept))
        self.path, self._file = path, path.open("a", encoding="utf-8", newline="\n")

    def write(self, record: Record) -> None:
        """Raises OSError, with the file's name, when the disk refuses."""
        with naming(self.path):
            self._file.write(_line(record))
            self._file.flush()

    def sync(self) -> None:
        """Force the lines to the disk, so that no checkpoint is ever ahead of its metrics."""
        with naming(self.path):
            os.fsync(self._file.fileno())

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # what could not be written is in the file's buffer still, and would fail again
        with naming(self.path) if error is None else suppress(OSError):
            self._file.close()


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"


def read_metrics(path: Path) -> list[Record]:
    """Every whole record of the file; [] when there is none. A kill can tear the last line: it is skipped."""
    if not path.exists():
        return []
    records = []
    for line in path.read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records
