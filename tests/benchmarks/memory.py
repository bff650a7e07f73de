"""Memory that a contestant's work takes, in a process of its own.

The model is made and works once over a few tokens. Then what that freed goes back to the system, the process's highest
mark (Linux' VmHWM) is set to what it holds, and the work is done once: the figure is how far it raises the mark. So
weights and libraries are in the start, and in training the gradients of the weights are in the figure. A system that
does not let the mark be set keeps that of the first work as the start. On a GPU the marks are those of torch's allocator.

Run by the benchmarks: python -m tests.benchmarks.memory CASE CONTESTANT [--device cpu] [--threads 1] [--quick]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import torch

from .case import Case, Options
from .cases import CASES
from .snippet import ROOT

STATUS = Path("/proc/self/status")
MARK = Path("/proc/self/clear_refs")


def growth(case: str, contestant: str, options: Options) -> int | None:
    """Bytes; None where the system does not tell."""
    if torch.device(options.device).type == "cpu" and not STATUS.exists():
        return None
    command = [sys.executable, "-m", __name__, case, contestant, "--device", options.device]
    command += ["--threads", str(options.threads), *(["--quick"] if options.quick else [])]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return int(run.stdout.split()[-1])


def measured(case: Case, contestant: str, options: Options) -> int:
    """Bytes, of this process."""
    made = case.made(contestant, options)
    case.work.ready(made, made.setting.brief())()
    work = case.work.ready(made, made.setting)
    reset(options.device)
    start = high_water(options.device)
    work()
    return high_water(options.device) - start


def reset(device: str) -> None:
    """Set the highest mark to what is held now, if the system allows it."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(AttributeError):  # glibc's alone
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        MARK.write_text("5")


def high_water(device: str) -> int:
    """Bytes at the highest mark."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated()
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case")
    parser.add_argument("contestant")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    case = CASES[given.case]
    assert isinstance(case, Case)
    print(measured(case, given.contestant, Options(given.device, given.threads, given.quick)))


if __name__ == "__main__":
    main()
