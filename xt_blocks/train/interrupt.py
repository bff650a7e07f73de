"""Stopping between two steps instead of in the middle of one.

Owns the signal handlers of a training run. An optimiser interrupted halfway leaves weights that belong to
no step; so the first Ctrl-C (or SIGTERM) only asks, and the loop stops, and saves, after the step at hand.
The second one interrupts at once.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """A context manager: within it, `signal` is None until a signal asks to stop, then its number."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that was stopped: 130 after Ctrl-C, 143 after SIGTERM or with another
        that was."""
        return 128 + (self.signal or signal.SIGTERM)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    def __enter__(self) -> StopRequest:
        # Python allows handlers in the main thread only; elsewhere the owner of the thread stops it.
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
