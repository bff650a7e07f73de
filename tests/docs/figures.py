"""The figures of speed on the pages, from tests/benchmarks/results/results.json."""

from __future__ import annotations

import re

from ..benchmarks.result import Result, Row, stored
from .pages import DOCS, ROOT

SPEED = DOCS / "speed.md"
RESULTS = ROOT / "tests" / "benchmarks" / "results" / "results.json"
PLACE = re.compile(r"(<!-- figures: [^\n]* -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)
PEERS = ("x-transformers, fused", "x-transformers", "transformers", "plain torch")
PARTS = {
    "train/": "Training: a forward pass, the loss, a backward pass",
    "option/": "Training with one option",
    "forward/": "A forward pass",
    "generate/": "Cached generation",
}


def with_figures(text: str) -> str:
    """The page of speed with the tables of what was measured."""
    tables = "\n".join(_table(prefix, title) for prefix, title in PARTS.items())
    conditions = sorted({re.sub(r", \d+ rounds?$", "", result.conditions) for result in _results()})
    measured = "; ".join(conditions).replace("1 thread", "one thread")
    return PLACE.sub(
        lambda found: (
            f"{found[1]}\nMeasured on: {measured}.\nModels have dim 512, 6 layers and 8 heads where nothing else is said.\n\n{tables}\n"
        ),
        text,
    )


def with_readme_figures(text: str) -> str:
    """README with the medians of its comparison."""
    cases = {result.case: _medians(result) for result in _results()}
    train, generate, packed = (
        cases[name] for name in ("train/plain-1024", "generate/gpt-16", "generate/gpt-16-packed")
    )
    rows = {
        "a train step of 1,024 tokens, CPU": [
            train["ours"],
            f"{train['x-transformers, fused']} fused, {train['x-transformers']} by default",
            train["transformers"],
            train["plain torch"],
        ],
        "256 tokens from each of 16 prompts, CPU": [
            f"{generate['ours']}, packed {packed['ours']}",
            *(generate[peer] for peer in PEERS[1:]),
        ],
    }
    for name, cells in rows.items():
        text = re.sub(rf"^\| {name} \|.*$", f"| {name} | {' | '.join(cells)} |", text, flags=re.M)
    plain = [result for result in _results() if result.case.startswith("train/plain-")]
    shares = sorted(1 / _faster(result, _row(result, PEERS[0])) for result in plain)
    return re.sub(r"takes \S+ to \S+ of the time", f"takes {shares[0]:.2f} to {shares[-1]:.2f} of the time", text)


def _results() -> list[Result]:
    return [result for result in stored(RESULTS).values() if result.rows]


def _table(prefix: str, title: str) -> str:
    results = [result for result in _results() if result.case.startswith(prefix)]
    peers = [peer for peer in PEERS if any(row.contestant == peer for result in results for row in result.rows)]
    rows = [
        f"## {title}",
        "",
        "How many times as fast as each of the others:",
        "",
        f"| what | batch x tokens | time | {' | '.join(peers)} |",
        f"| --- | --- | ---: |{' ---: |' * len(peers)}",
    ]
    for result in results:
        named = {row.contestant: row for row in result.rows}
        cells = [f"{_faster(result, named[peer]):.2f}" if peer in named else "" for peer in peers]
        time = spoken(result.rows[0].time.median).replace(" ", "&nbsp;")
        sizes = re.sub(r"^(train step|forward), |, dim 512, depth 6, heads 8| of 256(?=,|$)", "", result.sizes)
        rows.append(f"| {result.title} | {sizes} | {time} | {' | '.join(cells)} |")
    return "\n".join([*rows, ""])


def _faster(result: Result, row: Row) -> float:
    spread = result.faster(row)
    assert spread is not None
    return spread.median


def _row(result: Result, contestant: str) -> Row:
    return next(row for row in result.rows if row.contestant == contestant)


def _medians(result: Result) -> dict[str, str]:
    return {row.contestant: spoken(row.time.median) for row in result.rows}


def spoken(seconds: float) -> str:
    """`1.5 s`, `27 ms`"""
    number, unit = (seconds, "s") if seconds >= 0.5 else (seconds * 1000, "ms")
    return f"{float(f'{number:.2g}'):g} {unit}"
