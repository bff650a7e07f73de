"""What came out, as JSON, as Markdown, and as a plain list of what failed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..benchmarks.report import tables
from ..benchmarks.result import Result, Row
from .check import FAILED, PASSED, SKIPPED, Outcome
from .speed import CASES

JSON, MARKDOWN, FAILURES = "results.json", "README.md", "failed.txt"

LEGEND = """\
Speed: contestants take turns; *median* is of the times, *ours, times as fast* of the ratios within a round, with their
quartiles. *Memory* is by how much the work raises what torch's allocator holds at most: gradients and what the backward
pass keeps are in it, weights are not. *Of the limit* is the part of the speed of a large matrix product (p), or of
reading weights and cache (m).
"""


def write(folder: Path, outcomes: Sequence[Outcome], machine: str) -> None:
    """All three files, of what there is so far."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"machine": machine, "checks": [asdict(own) for own in outcomes]}
    (folder / JSON).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    (folder / MARKDOWN).write_text(markdown(outcomes, machine), encoding="utf-8")
    (folder / FAILURES).write_text(failures(outcomes), encoding="utf-8")


def failures(outcomes: Sequence[Outcome]) -> str:
    """A line each; no line where nothing failed."""
    return "".join(f"{own.name}: {own.reason}\n" for own in outcomes if own.status == FAILED)


def markdown(outcomes: Sequence[Outcome], machine: str) -> str:
    parts = [f"# On a GPU\n\n{machine}; {counted(outcomes)}.\n"]
    if failed := failures(outcomes):
        parts.append("\n## Failed\n\n" + "".join(f"- {line}\n" for line in failed.splitlines()))
    results = [result_of(own.details["result"]) for own in outcomes if own.group == "speed" and own.status == PASSED]
    if results:
        parts.append(f"\n## Speed and memory\n\n{LEGEND}\n{tables(results, CASES)}")
    parts.append("\n## Checks\n\n| check | | s | |\n| :- | :- | -: | :- |\n")
    parts += [f"| {own.name} | {own.status} | {own.seconds:.1f} | {note(own)} |\n" for own in outcomes]
    return "".join(parts)


def counted(outcomes: Sequence[Outcome]) -> str:
    """`3 passed, 1 failed, 0 skipped`"""
    of = [own.status for own in outcomes]
    return ", ".join(f"{of.count(status)} {status}" for status in (PASSED, FAILED, SKIPPED))


def note(own: Outcome) -> str:
    """Why it is not passed, or the figures of one that is."""
    if own.reason:
        return own.reason.replace("|", "\\|")
    if own.group == "speed" or not isinstance(own.details, dict):
        return ""
    parts = [value["part of it"] for value in own.details.values() if isinstance(value, dict) and "part of it" in value]
    if parts:
        return f"at most {max(parts):.0%} of what rounding allows"
    return ", ".join(f"{key}: {value:,.3g}" for key, value in own.details.items() if isinstance(value, (int, float)))


def result_of(details: dict[str, Any]) -> Result:
    return Result(**details | {"rows": [Row(**row) for row in details["rows"]]})
