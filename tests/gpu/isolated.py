"""Checks in a process of their own, which is replaced when it dies, hangs, or can no longer use its device.

An illegal access on a GPU leaves a process without it, and a crash takes the process along: neither may take along the
checks that follow.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from ..benchmarks.case import Options
from .check import FAILED, SKIPPED, Check, Outcome, answers, outcome, prepare

START = 180.0
"""Seconds that a process may take to start: imports, and the first use of the device."""
SHORTEST = 2.0
"""Seconds in which a check is not worth beginning."""

Make = Callable[[Check, float], Outcome]
"""A check, and the seconds that it has → its outcome. Raises TimeoutError when they are over."""


def outcomes(checks: Iterable[Check], make: Make, end: float) -> Iterator[Outcome]:
    """One outcome a check, in their order; from `end` on, by time.monotonic(), they are skipped."""
    for check in checks:
        left = end - time.monotonic()
        if left < SHORTEST:
            yield Outcome(check.name, SKIPPED, reason="no time was left")
            continue
        try:
            yield make(check, min(check.seconds, left))
        except TimeoutError:
            if left < check.seconds:
                yield Outcome(check.name, SKIPPED, round(left, 2), "stopped: no time was left")
            else:
                yield Outcome(check.name, FAILED, check.seconds, f"stopped after {check.seconds:g} s")


class Worker:
    """Makes checks in another process; a `Make`, and a context that ends the process.

    Args:
        options: the command's arguments, for every check.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None

    def __call__(self, check: Check, seconds: float) -> Outcome:
        start = time.monotonic()
        try:
            connection = self._started()
            connection.send(check)
            if not connection.poll(max(0.0, seconds - (time.monotonic() - start))):
                self.stop()
                raise TimeoutError
            done, usable = connection.recv()
        except (EOFError, ConnectionError):
            return Outcome(check.name, FAILED, round(time.monotonic() - start, 2), f"the process {self._end()}")
        if not usable:
            self.stop()
        return done

    def __enter__(self) -> Worker:
        with suppress(TimeoutError, EOFError, ConnectionError):  # the first check tries anew, and tells
            self._started()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process; the next check gets a new one."""
        if self._process is not None and self._connection is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
        self._process = self._connection = None

    def _started(self) -> Connection:
        if self._connection is None:
            context = multiprocessing.get_context("spawn")  # a fork cannot use CUDA
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, self.options))
            self._process.start()
            theirs.close()
            if not self._connection.poll(START):
                self.stop()
                raise TimeoutError
            self._connection.recv()
        return self._connection

    def _end(self) -> str:
        """How the process ended."""
        assert self._process is not None
        self._process.join(10)
        code = self._process.exitcode
        self.stop()
        return f"was ended by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exited with {code}"


def _serve(connection: Connection, options: Options) -> None:
    """In the process: a check in, its outcome out, and whether the device still answers."""
    prepare(options)
    connection.send(answers(options.device))
    while True:
        try:
            check = connection.recv()
        except EOFError:
            return
        gc.freeze()  # what is there by now stays: collections, which come before each round of a timing, pass it by
        done = outcome(check, options)
        connection.send((done, done.status != FAILED or answers(options.device)))
