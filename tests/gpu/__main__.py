"""Everything that a GPU must show: that each kernel is right on it, and how fast it is beside other libraries.

At most ten minutes on one GPU. It needs torch, networkx and lark; x-transformers and transformers take part where
they are installed. Every check is made for itself: one that fails, hangs or runs out of memory is told with its reason,
and the others go on. The most important come first; what no time is left for is skipped.

Examples:
  python -m tests.gpu                                 all of it; results in runs/gpu
  python -m tests.gpu 'kernel/*' 'options/alibi*'     some checks
  python -m tests.gpu --list                          what there is
  python -m tests.gpu --tiny --device cpu             small sizes, without a GPU: only whether all of it runs
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from ..benchmarks.case import Options
from ..benchmarks.compare import processor, release
from .check import FAILED, PASSED, Check, Outcome, outcome, prepare
from .isolated import Make, Worker, outcomes
from .report import FAILURES, counted, write
from .table import CHECKS


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="python -m tests.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("checks", nargs="*", metavar="CHECK", help="names or globs of checks; all when none is given")
    out.add_argument("--list", action="store_true", help="name the checks, and make none")
    out.add_argument("--device", default="cuda", help="torch's name of it (cuda)")
    out.add_argument("--tiny", action="store_true", help="small sizes, which say nothing of speed")
    out.add_argument("--minutes", type=float, default=10.0, metavar="M", help="in all (10)")
    out.add_argument("--in-process", action="store_true", help="make the checks in this process, for a debugger")
    out.add_argument(
        "--out", type=Path, default=Path("runs", "gpu"), metavar="FOLDER", help="where results go (runs/gpu)"
    )
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """0: nothing failed; 1: something did; 2: there is nothing to do."""
    given = parser().parse_args(arguments)
    chosen = selected(given.checks)
    if not chosen:
        print(f"no check is named {' or '.join(given.checks)}; --list names all", file=sys.stderr)
        return 2
    if given.list:
        print("\n".join(check.name for check in chosen))
        return 0
    if torch.device(given.device).type == "cuda" and not torch.cuda.is_available():
        print("there is no GPU here; --tiny --device cpu runs all of it in small", file=sys.stderr)
        return 2
    options = Options(given.device, 1 if given.tiny else torch.get_num_threads(), given.tiny)
    end = time.monotonic() + 60 * given.minutes
    done: list[Outcome] = []
    with nullcontext(in_process(options)) if given.in_process else Worker(options) as make:
        for own in outcomes(chosen, make, end):
            done.append(own)
            line = f"{own.status:8}{own.seconds:7.1f} s  {own.name}"
            print(line if own.status == PASSED else f"{line}: {own.reason}", flush=True)
            write(given.out, done, machine(options))
    failed = any(own.status == FAILED for own in done)
    print(f"\n{counted(done)}; results are in {given.out}" + (f", failures in {FAILURES}" if failed else ""))
    return 1 if failed else 0


def selected(globs: Sequence[str]) -> list[Check]:
    """The checks that any of the globs names, in their order; all of them without globs."""
    return [own for name, own in CHECKS.items() if not globs or any(fnmatchcase(name, glob) for glob in globs)]


def in_process(options: Options) -> Make:
    prepare(options)
    return lambda check, seconds: outcome(check, options)


def machine(options: Options) -> str:
    """The device and the releases."""
    on_gpu = torch.device(options.device).type == "cuda"
    device = torch.cuda.get_device_name(options.device) if on_gpu else processor()
    names = ("torch", "triton", "x-transformers", "transformers")
    releases = [f"{name} {found}" for name in names if (found := release(name))]
    parts = [device, *releases, f"Python {platform.python_version()}"]
    return ", ".join(parts + ["small sizes, which say nothing of speed"] * options.quick)


if __name__ == "__main__":
    sys.exit(main())
