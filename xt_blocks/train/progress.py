"""What a training run shows while it runs.

Owns the progress bar (tqdm) on a terminal and plain lines elsewhere, because redrawn bars clutter a log
file. Both go to standard error; results go to standard output.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

from tqdm import tqdm

from .metrics import Record

SMOOTHING = 0.95
SECONDS_BETWEEN_LINES = 10.0


class ProgressBar:
    """A `Reporter`: loss, tokens/s and time left for every step, and a line for every evaluation.

    Args:
        steps: of the whole run.
        done: steps done before, when resumed.
        tokens_per_step: that a step trains on.
        stream: where to; standard error by default.
        unit: of training losses.
    """

    def __init__(
        self, steps: int, done: int, tokens_per_step: int, stream: TextIO | None = None, unit: str = "bits/byte"
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._steps, self._first, self._tokens, self._unit = steps, done, tokens_per_step, unit
        self._started = self._shown = time.monotonic()
        self._sum = self._weight = 0.0
        self._bar = (
            tqdm(total=steps, initial=done, file=self._stream, unit="step", dynamic_ncols=True)
            if _draws_bars(self._stream)
            else None
        )

    def step(self, record: Record) -> None:
        self._sum = SMOOTHING * self._sum + record["loss"]
        self._weight = SMOOTHING * self._weight + 1
        per_step = (time.monotonic() - self._started) / (record["step"] - self._first)
        shown = f"loss {self._sum / self._weight:.3f} {self._unit}, {self._tokens / max(per_step, 1e-9):,.0f} tokens/s"
        if self._bar is not None:
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update()
        elif time.monotonic() - self._shown > SECONDS_BETWEEN_LINES:
            self._shown = time.monotonic()
            left = tqdm.format_interval((self._steps - record["step"]) * per_step)
            self.say(f"step {record['step']}/{self._steps}  {shown}, {left} left")

    def evaluation(self, record: Record) -> None:
        self.say(f"step {record['step']}/{self._steps}  validation {record['val_bits_per_byte']:.3f} bits/byte")
        if record["step"] == self._first:  # the evaluation before training does not count as a step's time
            self._started = time.monotonic()
            if self._bar is not None:
                self._bar.unpause()

    def say(self, line: str) -> None:
        """A line that does not disturb the bar."""
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """The last line stays."""
        if self._bar is not None:
            self._bar.close()


def _draws_bars(stream: TextIO) -> bool:
    """Whether it is a terminal, and one that knows its width: without one tqdm would show nothing."""
    try:
        return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):
        return False
