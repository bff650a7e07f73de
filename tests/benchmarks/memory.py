"""Memory that a contestant's work takes, in a process of its own.

The model is made and works once over a few tokens; from there on the highest mark is followed: by how much more the
work raises it is what is told. So weights, libraries and, in training, gradients of the weights are in the start, and
the figure is what grows with the tokens. On a GPU it is the allocator's mark; on the CPU the process's (Linux' VmHWM).

Run by the benchmarks: python -m tests.benchmarks.memory CASE CONTESTANT [--device cpu] [--threads 1] [--quick]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch

from .case import Case, Options
from .cases import CASES
from .snippet import ROOT

STATUS = Path("/proc/self/status")


def growth(case: str, contestant: str, options: Options) -> int | None:
    """Bytes; None where the system does not tell."""
    if torch.device(options.device).type == "cpu" and not STATUS.exists():
        return None
    command = [sys.executable, "-m", __name__, case, contestant, "--device", options.device]
    command += ["--threads", str(options.threads), *(["--quick"] if options.quick else [])]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return int(run.stdout.split()[-1])


def high_water(device: str) -> int:
    """Bytes of the highest mark so far."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated()
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def measured(case: Case, contestant: str, options: Options) -> int:
    made = case.made(contestant, options)
    case.work.ready(made, made.setting.brief())()
    work = case.work.ready(made, made.setting)
    start = high_water(options.device)
    work()
    return high_water(options.device) - start


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
