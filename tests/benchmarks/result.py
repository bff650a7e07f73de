"""What was measured of a case, and a file that keeps it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from .case import Goal
from .limits import Least, Rates
from .measure import Spread, ratios


@dataclass(frozen=True)
class Row:
    """A contestant's numbers.

    Attributes:
        seconds: of each round.
        least: seconds that the work takes at the machine's limit, measured in the same rounds; `bound` is which limit.
        memory: bytes that the work adds, at most.
    """

    contestant: str
    seconds: list[float]
    parameters: int | None = None
    tokens: int | None = None
    least: list[float] | None = None
    bound: str | None = None
    memory: int | None = None

    def with_limit(self, least: Least, rates: Sequence[Rates]) -> Row:
        typical = Rates(
            statistics.median(rate.flops for rate in rates), statistics.median(rate.bytes for rate in rates)
        )
        return replace(self, least=[least.seconds(rate) for rate in rates], bound=least.bound(typical))

    def with_memory(self, memory: int | None) -> Row:
        return replace(self, memory=memory)

    @property
    def time(self) -> Spread:
        return Spread.of(self.seconds)

    @property
    def of_limit(self) -> Spread | None:
        """The part of the limit's speed that is reached."""
        return None if self.least is None else ratios(self.least, self.seconds)


@dataclass(frozen=True)
class Result:
    """
    Attributes:
        rows: the first is the one that the others are compared with; none where that one is left out.
        left_out: why, by contestant.
        conditions: the machine, the releases, and how it was run.
    """

    case: str
    title: str
    sizes: str
    rows: list[Row]
    left_out: dict[str, str] = field(default_factory=dict)
    conditions: str = ""

    def faster(self, row: Row) -> Spread | None:
        """How many times as fast the first is as this one."""
        return None if row is self.rows[0] else ratios(row.seconds, self.rows[0].seconds)

    def memory(self, row: Row) -> float | None:
        """The part of this one's memory that the first takes."""
        ours = self.rows[0].memory
        return None if row is self.rows[0] or ours is None or not row.memory else ours / row.memory


def met(goal: Goal, faster: Spread | None, memory: float | None) -> tuple[bool | None, bool | None]:
    """Whether a figure is reached in speed and in memory; None where there is none, or nothing measured."""
    speed = None if goal.faster is None or faster is None else faster.median >= goal.faster
    room = None if goal.memory is None or memory is None else memory <= goal.memory
    return speed, room


def stored(path: Path) -> dict[str, Result]:
    """The results in a file, by case."""
    if not path.exists():
        return {}
    values = json.loads(path.read_text(encoding="utf-8"))
    return {value["case"]: Result(**value | {"rows": [Row(**row) for row in value["rows"]]}) for value in values}


def store(path: Path, results: Iterable[Result]) -> None:
    path.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n", encoding="utf-8")
