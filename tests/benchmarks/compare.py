"""One case, measured."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .case import Case, Entry, Options, StartCase
from .contestants.base import LeftOut
from .limits import Machine
from .measure import interleaved
from .memory import growth
from .result import Result, Row

LIMIT = "limit"  # stands beside the contestants in every round


def compare(
    case: Case | StartCase, options: Options, runs: int, memory: bool = True, contestants: tuple[str, ...] = ("*",)
) -> Result:
    """Time the contestants that take part, round by round, and then their memory, one after the other.

    Args:
        runs: rounds that count; one more goes before them.
        memory: measure it where the case asks for it.
        contestants: globs of names; the first contestant always takes part.
    """
    entries, left_out = ready(case, options, contestants)
    rows = timed(case, entries, options, runs) if entries else []
    if memory and case.memory:
        rows = [row.with_memory(growth(case.name, row.contestant, options)) for row in rows]
    return Result(case.name, case.title, case.sizes, rows, left_out, conditions(options, runs))


def ready(
    case: Case | StartCase, options: Options, contestants: tuple[str, ...]
) -> tuple[dict[str, Entry], dict[str, str]]:
    """Those that take part, and why others do not; without the first, nobody does."""
    first, *others = case.contestants
    entries: dict[str, Entry] = {}
    left_out: dict[str, str] = {}
    for name in [first, *(name for name in others if any(fnmatchcase(name, glob) for glob in contestants))]:
        try:
            entries[name] = case.entry(name, options)
        except LeftOut as reason:
            left_out[name] = str(reason)
        if first in left_out:
            break
    return entries, left_out


def timed(case: Case | StartCase, entries: dict[str, Entry], options: Options, runs: int) -> list[Row]:
    """Seconds of each round, and those of the machine's limit; work that has no graph has the first one's."""
    rounds: dict[str, Callable[[], Any]] = {name: entry.seconds for name, entry in entries.items()}
    first = next(iter(entries.values())).least
    if first is not None:
        rounds[LIMIT] = Machine(options.device, case.arithmetic, first.span, product(options)).rates
    seconds = interleaved(rounds, runs)
    rows = []
    for name, entry in entries.items():
        row = Row(name, seconds[name], entry.parameters, entry.tokens)
        least = entry.least or first
        rows.append(row if least is None else row.with_limit(least, seconds[LIMIT]))
    return rows


def product(options: Options) -> int:
    """Rows of matrices whose product is large for the device."""
    if options.quick:
        return 64
    return 8192 if torch.device(options.device).type == "cuda" else 2048


def conditions(options: Options, runs: int) -> str:
    """The machine, the releases, and how it was run."""
    on_gpu = torch.device(options.device).type == "cuda"
    device = torch.cuda.get_device_name(options.device) if on_gpu else processor()
    threads = "1 thread" if options.threads == 1 else f"{options.threads} threads"
    releases = [f"{name} {found}" for name in ("torch", "x-transformers", "transformers") if (found := release(name))]
    parts = [device, threads, *releases, f"Python {platform.python_version()}", f"{runs} rounds"]
    return ", ".join(parts + ["small sizes, which say nothing of speed"] * options.quick)


def release(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """Its name, where the system tells it."""
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.*)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return found[1] if found else platform.processor() or platform.machine()
