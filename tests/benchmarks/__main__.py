"""How fast it is: training, generation and start-up beside other libraries, in one interleaved run.

Peers are x-transformers and transformers, where they are installed, and plain torch. A GPU is used where there is one.

Examples:
  python -m tests.benchmarks --list                             what there is
  python -m tests.benchmarks 'train/*' generate/gpt-1           some cases
  python -m tests.benchmarks 'option/*-512' --contestants ours\\* x-transformers
  python -m tests.benchmarks --out tests/benchmarks/results     all of them, into the documentation
"""

from __future__ import annotations

import argparse
import difflib
import sys
import time
from collections.abc import Iterable, Sequence
from fnmatch import filter as matching
from pathlib import Path

import torch

from .case import Options
from .cases import CASES
from .compare import compare
from .plot import plot
from .report import PICTURE, report, tables
from .result import Result, store, stored


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("cases", nargs="*", metavar="CASE", help="names or globs of cases; all when none is given")
    out.add_argument("--list", action="store_true", help="name the cases and their contestants, and run none")
    out.add_argument("--runs", type=int, default=5, metavar="N", help="rounds that count, one more goes before (5)")
    out.add_argument("--threads", type=int, default=1, metavar="N", help="torch's threads (1)")
    out.add_argument("--device", default=None, help="cpu or cuda; cuda when not given and there is one")
    out.add_argument("--quick", action="store_true", help="tiny sizes, one round, no memory: only whether all runs")
    out.add_argument("--no-memory", action="store_true", help="measure times alone")
    out.add_argument("--contestants", nargs="+", default=["*"], metavar="GLOB", help="with whom to compare ours")
    out.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="write README.md, speed.svg and results.json there; cases that are there already are kept or replaced",
    )
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    try:
        chosen = selected(given.cases)
    except LookupError as error:
        print(error, file=sys.stderr)
        return 2
    if given.list:
        for name in chosen:
            case = CASES[name]
            print(f"{name:32} {case.title} ({case.sizes})\n{'':32} {', '.join(case.contestants)}")
        return 0
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(given.threads)
    options = Options(device, given.threads, given.quick)
    runs, memory = (1, False) if given.quick else (max(1, given.runs), not given.no_memory)
    kept = {} if given.out is None else stored(given.out / "results.json")
    for name in chosen:
        start = time.monotonic()
        result = compare(CASES[name], options, runs, memory, tuple(given.contestants))
        print(f"{tables([result], CASES)}- {time.monotonic() - start:.0f} s\n", flush=True)
        kept[name] = result
        if given.out is not None:
            write(given.out, [kept[name] for name in CASES if name in kept])
    return 0


def selected(globs: Iterable[str]) -> list[str]:
    """The cases' names, in their order.

    Raises:
        LookupError: a glob that no case has; the message names the nearest.
    """
    chosen: set[str] = set()
    for glob in globs:
        if not (found := matching(CASES, glob)):
            near = difflib.get_close_matches(glob, CASES, n=1)
            raise LookupError(f"no case {glob!r}" + (f"; did you mean {near[0]!r}?" if near else "; --list names all"))
        chosen |= {*found}
    return [name for name in CASES if name in chosen or not globs]


def write(folder: Path, results: list[Result]) -> None:
    """The numbers, the table and the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    store(folder / "results.json", results)
    plot(results, folder / PICTURE)
    (folder / "README.md").write_text(report(results, CASES), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
