"""One thing to find out on a device, and what came of it."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..benchmarks.case import Options
from ..benchmarks.measure import synchronizer
from .compiling import compiling

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


class NotHere(Exception):
    """A check cannot be made on this machine; the message says why."""


@dataclass(frozen=True)
class Check:
    """
    Attributes:
        name: `group/name`.
        run: makes it, and returns what is worth keeping, as JSON has it. It raises NotHere, or anything else to fail.
        seconds: after so many it is stopped, and has failed.
        later: it comes after all others, whose results are worth more where the time does not last.
    """

    name: str
    run: Callable[[Options], Any]
    seconds: float = 60.0
    later: bool = False


@dataclass(frozen=True)
class Outcome:
    """
    Attributes:
        status: PASSED, FAILED or SKIPPED.
        reason: why it is not PASSED, in a line.
        trace: where it failed.
        details: what the check returned.
    """

    name: str
    status: str
    seconds: float = 0.0
    reason: str = ""
    trace: str = ""
    details: Any = None

    @property
    def group(self) -> str:
        return self.name.partition("/")[0]


def prepare(options: Options) -> None:
    """Make this process one for checks: its threads, and the device that memory is counted of."""
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)


def outcome(check: Check, options: Options) -> Outcome:
    """Make the check in this process; whatever it raises is its outcome."""
    start = time.perf_counter()
    status, reason, trace, details = PASSED, "", "", None
    torch.manual_seed(0)
    try:
        with compiling(options):
            details = check.run(options)
        synchronizer(options.device)()  # a kernel that fails tells so late, and not in the next check's name
    except NotHere as error:
        status, reason = SKIPPED, str(error)
    except Exception as error:
        status, reason, trace = FAILED, described(error), traceback.format_exc()
    with suppress(Exception):  # of a device that no longer answers, which `answers` finds out
        release()
    return Outcome(check.name, status, round(time.perf_counter() - start, 2), reason, trace, details)


def described(error: BaseException) -> str:
    """Its type, what it says, and the line of this repository that it comes from."""
    root = Path(__file__).parents[2]
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [(path, line) for path, line in frames if path.is_relative_to(root) and "site-packages" not in path.parts]
    where = f" ({own[-1][0].relative_to(root)}:{own[-1][1]})" if own else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 400 else text[:397] + '...'}{where}"


def release() -> None:
    """Give back what a check has left: graphs that were compiled, and memory."""
    torch.compiler.reset()
    free()


def free() -> None:
    """Give memory that nothing refers to back to the device."""
    gc.collect()
    torch.cuda.empty_cache()


def answers(device: str) -> bool:
    """Whether the device still computes; after some errors a process cannot use it any more."""
    try:
        return bool((torch.ones(2, device=device) + 1).sum().item() == 4)
    except RuntimeError:
        return False
