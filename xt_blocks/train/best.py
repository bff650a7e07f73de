"""The evaluation that was best, and how long ago: what early stopping decides by.

Owns that memory, which is saved in each checkpoint. Leaves the decision to `loop`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import inf
from typing import Any


@dataclass
class Best:
    """
    Attributes:
        step: of the best evaluation.
        value: what was measured then; less is better.
        since: evaluations after it.
    """

    step: int = 0
    value: float = inf
    since: int = 0

    def see(self, step: int, value: float) -> None:
        """Take in an evaluation."""
        if value < self.value:
            self.step, self.value, self.since = step, value, 0
        else:
            self.since += 1

    def to_state(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any] | None) -> Best:
        """That of a checkpoint; one without it, of an older run, has seen nothing."""
        return cls(**state) if state else cls()
