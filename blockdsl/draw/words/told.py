"""What a comparison says of the nodes of one of its two graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

STATUSES = {"same": "grey-0", "changed": "hue-2", "added": "hue-4", "removed": "hue-3"}
"""What became of a node, and the class of its colour."""

SIGNS = {"changed": "~", "added": "+", "removed": "−"}
"""On a corner of its box."""


@dataclass(frozen=True)
class Told:
    """
    Attributes:
        status: node → one of STATUSES; of a graph by itself there is none.
        changes: node → what differs, in words.
    """

    status: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def sign(self, node: str) -> str:
        return SIGNS.get(self.status.get(node, "same"), "")

    def hue(self, node: str) -> str:
        return STATUSES[self.status.get(node, "same")]


UNTOLD = Told()
