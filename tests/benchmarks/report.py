"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .case import Case, Goal, StartCase
from .measure import Spread
from .result import Result, Row, met

COLUMNS = {
    "case": "<",
    "contestant": "<",
    "parameters": ">",
    "median": ">",
    "tokens/s": ">",
    "ours, times as fast": ">",
    "at least": ">",
    "memory": ">",
    "ours, part of it": ">",
    "at most": ">",
    "of the limit": ">",
}

PICTURE = "speed.svg"  # beside the report

GROUPS = {
    "train": "Training: forward, loss, backward",
    "option": "Training with one option",
    "forward": "Forward",
    "generate": "Cached generation, the likeliest token each time",
    "start": "Starting and building",
}

LEGEND = """\
Contestants were run in rounds, A B C A B C ..., after one that does not count. *Median* is of the times, *ours, times as
fast* of the ratios within rounds, with their quartiles; above 1, the first contestant is faster. *At least* and *at
most* are figures to reach, and an exclamation mark stands at one that was not. *Memory* is by how much the work raises
the highest mark of a fresh process that has made the model and worked over a few tokens; gradients are in it. *Of the
limit* is how much of the possible speed is reached: that of a large matrix product (p), or of reading weights and cache
from memory (m), measured in the same rounds; of attention only pairs that may meet count. The product is that of the
faster of MKL and oneDNN; rows above 100% are from a time when it was MKL's alone.
"""


def report(results: Iterable[Result], cases: Mapping[str, Case | StartCase]) -> str:
    """Markdown: a table a group of cases, what the numbers mean, and what was left out."""
    results = list(results)
    parts = [f"# Speed\n\n![how many times as fast]({PICTURE})\n\n{LEGEND}\n"]
    parts += [f"- {line}\n" for line in conditions(results)]
    for group, title in GROUPS.items():
        own = [result for result in results if result.case.startswith(f"{group}/")]
        if own:
            parts += [f"\n## {title}\n\n", tables(own, cases)]
    return "".join(parts)


def conditions(results: Iterable[Result]) -> list[str]:
    """Under which ones they were measured; where these differ, each with its cases."""
    cases: dict[str, list[str]] = {}
    for result in results:
        cases.setdefault(result.conditions, []).append(f"`{result.case}`")
    return [*cases] if len(cases) < 2 else [f"{line}: {', '.join(names)}" for line, names in cases.items()]


def tables(results: Sequence[Result], cases: Mapping[str, Case | StartCase]) -> str:
    """A table of these cases, what they are, and who was left out."""
    rows = [line for result in results for line in lines(result, cases[result.case].goals)]
    notes = [f"- `{result.case}`: {result.title}; {result.sizes}\n" for result in results]
    notes += [f"- {note}\n" for note in told(results)]
    return (table(rows) + "\n" if rows else "") + "".join(notes)


def told(results: Iterable[Result]) -> list[str]:
    """Who was left out and why; a reason is told once, with the first case."""
    reasons = {reason: (result, name) for result in [*results][::-1] for name, reason in result.left_out.items()}
    return [f"`{result.case}`: {name} left out: {reason}" for reason, (result, name) in [*reasons.items()][::-1]]


def lines(result: Result, goals: Mapping[str, Goal]) -> list[list[str]]:
    """The cells of each of a case's rows."""
    return [cells(result, row, goals.get(row.contestant, Goal())) for row in result.rows]


def cells(result: Result, row: Row, goal: Goal) -> list[str]:
    faster, memory = result.faster(row), result.memory(row)
    speed_met, memory_met = met(goal, faster, memory)
    return [
        f"`{result.case}`" if row is result.rows[0] else "",
        row.contestant,
        parameters(result, row),
        seconds(row.time.median),
        "" if row.tokens is None else f"{row.tokens / row.time.median:,.0f}",
        "" if faster is None else spread(faster),
        "" if goal.faster is None else f"{goal.faster:.2f}{'!' if speed_met is False else ''}",
        "" if row.memory is None else f"{row.memory / 2**20:,.0f} MB",
        "" if memory is None else f"{memory:.2f}",
        "" if goal.memory is None else f"{goal.memory:.2f}{'!' if memory_met is False else ''}",
        "" if row.of_limit is None else f"{row.of_limit.median:.0%} {(row.bound or ' ')[0]}",
    ]


def parameters(result: Result, row: Row) -> str:
    """How many the first has, and how many more or fewer another."""
    if row.parameters is None:
        return ""
    ours = result.rows[0].parameters
    if row is result.rows[0] or not ours:
        return f"{row.parameters:,}"
    return "as many" if row.parameters == ours else f"{row.parameters / ours - 1:+.2%}"


def seconds(value: float) -> str:
    """Three digits of it, in the unit that suits."""
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def spread(value: Spread) -> str:
    """`1.02 (1.01 to 1.04)`"""
    return f"{value.median:.2f} ({value.low:.2f} to {value.high:.2f})"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown that reads well as text too; a column that says nothing is left out."""
    shown = [place for place in range(len(COLUMNS)) if any(row[place] for row in rows)]
    names = list(COLUMNS)
    widths = {place: max(len(names[place]), *(len(row[place]) for row in rows)) for place in shown}

    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(f"{texts[p]:{COLUMNS[names[p]]}{widths[p]}}" for p in shown) + " |\n"

    rule = [("-" * (widths.get(p, 1) - 1)) + (":" if COLUMNS[name] == ">" else "-") for p, name in enumerate(names)]
    return line(names) + line(rule) + "".join(line(row) for row in rows)
