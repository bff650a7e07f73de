"""This checkout's speed beside another one's, case by case: did a change make anything slower?

Both run the same cases, each in a process of its own that imports its own packages, and take turns within each round.
A ratio above 1 means that this checkout is faster.

Examples:
  git worktree add ../before v0.1.0
  python -m tests.benchmarks.against ../before
  python -m tests.benchmarks.against ../before 'train/*' 'generate/*' --runs 9 --out against.json
  python -m tests.benchmarks.against ../before 'train/*' --onednn     float32 linear layers on oneDNN in both
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent.parent
ONEDNN = ("xt_blocks.kernels.onednn", "xt_blocks.onednn")  # today's place, and that of 0.1.0


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    if given.serve:
        _serve(given)
        return 0
    other = given.checkout.resolve()
    if not (other / "tests" / "benchmarks" / "cases.py").is_file():
        print(f"{given.checkout} is no checkout with tests/benchmarks", file=sys.stderr)
        return 2
    rows = []
    with _Worker(HERE, given) as ours, _Worker(other, given) as theirs:
        both = [name for name in ours.ask("cases") if name in {*theirs.ask("cases")}]
        chosen = [name for name in both if not given.cases or any(fnmatch(name, glob) for glob in given.cases)]
        for name in chosen:
            for contestant, ratios in _ratios(ours, theirs, name, given.runs):
                rows.append({"case": name, "contestant": contestant, "ratios": ratios})
                print(_row(rows[-1]), flush=True)
                if given.out is not None:
                    given.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.against",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out.add_argument("checkout", type=Path, help="the other one's folder")
    out.add_argument("cases", nargs="*", metavar="CASE", help="globs of cases; all when none is given")
    out.add_argument("--runs", type=int, default=5, metavar="N", help="rounds that count, one more goes before (5)")
    out.add_argument("--threads", type=int, default=1, metavar="N", help="torch's threads (1)")
    out.add_argument("--onednn", action="store_true", help="float32 linear layers on oneDNN, whatever the processor")
    out.add_argument("--quick", action="store_true", help="tiny sizes: only whether all runs")
    out.add_argument("--out", type=Path, metavar="FILE", help="write the ratios there, as JSON")
    out.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return out


def _ratios(ours: _Worker, theirs: _Worker, case: str, runs: int) -> Iterator[tuple[str, list[float]]]:
    """Of each contestant that both have: their seconds by ours, round by round."""
    ready = ours.ask("ready", case), theirs.ask("ready", case)
    for contestant in (name for name in ready[0] if name in ready[1]):
        rounds = [(ours.ask("time", contestant), theirs.ask("time", contestant)) for _ in range(runs + 1)]
        yield contestant, [their / our for our, their in rounds[1:]]


def _row(row: dict[str, Any]) -> str:
    from .measure import Spread

    spread = Spread.of(row["ratios"])
    return f"{row['case']:32} {row['contestant']:24} {spread.median:5.3f}  ({spread.low:.3f} to {spread.high:.3f})"


# A worker ----------------------------------------------------------------------------------------------------------


class _Worker:
    """A process that runs the cases of a checkout when it is asked to, a line of JSON each way."""

    def __init__(self, checkout: Path, given: argparse.Namespace) -> None:
        flags = [f"--{name}" for name in ("onednn", "quick") if getattr(given, name)]
        # this file's code with the other checkout's packages
        code = f"import runpy, sys; sys.path.insert(0, {str(checkout)!r}); runpy.run_path({__file__!r}, run_name='__main__')"
        command = [sys.executable, "-c", code, str(checkout), "--serve", "--threads", str(given.threads), *flags]
        self.process = subprocess.Popen(
            command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def ask(self, *request: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{' '.join(request)}: the process of {self.process.args[3]} ended")  # type: ignore[index]
        return json.loads(answer)


def _serve(given: argparse.Namespace) -> None:
    """Answer on standard output; what the cases print goes to standard error."""
    answers, sys.stdout = sys.stdout, sys.stderr
    import torch

    case = import_module("tests.benchmarks.case")
    cases = import_module("tests.benchmarks.cases").CASES
    if not _comes_from(case, given.checkout):
        raise RuntimeError(f"the cases are not those of {given.checkout}")
    torch.set_num_threads(given.threads)
    if given.onednn:
        _use_onednn()
    options = case.Options("cpu", given.threads, given.quick)
    entries: dict[str, Any] = {}
    for line in sys.stdin:
        what, *rest = json.loads(line)
        if what == "cases":
            answer: Any = [name for name, each in cases.items() if isinstance(each, case.Case)]
        elif what == "ready":
            entries = dict(_entries(cases[rest[0]], options))
            answer = [*entries]
        else:
            answer = entries[rest[0]].seconds()
        print(json.dumps(answer), file=answers, flush=True)


def _comes_from(module: Any, checkout: Path) -> bool:
    return Path(module.__file__).resolve().is_relative_to(checkout.resolve())


def _entries(case: Any, options: Any) -> Iterator[tuple[str, Any]]:
    """Our contestants that take part."""
    left_out = import_module("tests.benchmarks.contestants.base").LeftOut
    for name in case.contestants:
        if name.startswith("ours"):
            try:
                yield name, case.entry(name, options)
            except left_out as reason:
                print(f"{case.name}: {name} is left out: {reason}", file=sys.stderr)


def _use_onednn() -> None:
    for name in ONEDNN:
        try:
            import_module(name).BEATS_MKL = True
        except ModuleNotFoundError:
            continue
        return
    raise RuntimeError("the checkout has no oneDNN kernels")


if __name__ == "__main__":
    sys.exit(main())
