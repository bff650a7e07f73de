"""A text as the page has it: read as far as it can be, with its mistakes, and which of it stands for which blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..api import BlockGraph, compile
from ..errors import PatternError, UserError
from ..language.pattern import Pattern, parse

WIDTH = 512
"""Of the stream, where neither the text nor a setting says it; the command line's too."""


@dataclass(frozen=True)
class Written:
    """A text and what was made of it.

    Attributes:
        pattern: None where the text cannot be read.
        graph: None where it cannot be made.
        settings: that it was made with, beside those in the text.
        faults: what is wrong.
    """

    text: str
    settings: dict[str, Any]
    pattern: Pattern | None
    graph: BlockGraph | None
    faults: tuple[UserError, ...] = ()

    def told(self, side: str) -> dict[str, Any]:
        """What the page shows of the text; `side`: what its blocks are called by in the picture of a difference."""
        return {"faults": [_fault(fault) for fault in self.faults], "spans": self._spans(side), "tokens": []}

    def _spans(self, side: str) -> list[tuple[int, int, list[str]]]:
        if self.graph is None or self.pattern is None:
            return []
        sides = {"": self.pattern}
        if self.pattern.encoder is not None:
            sides = {"encoder": self.pattern.encoder, "decoder": self.pattern.decoder}
        found: dict[tuple[int, int], list[str]] = {}
        for name, pattern in sides.items():
            prefix = " ".join(part for part in (name, side) if part)
            for i, block in enumerate(pattern.expansion.blocks()):
                node = f"{block.kind}{i}"
                found.setdefault((block.span.start, block.span.end), []).append(f"{prefix}.{node}" if prefix else node)
        return [(start, end, nodes) for (start, end), nodes in sorted(found.items())]


def _fault(fault: UserError) -> dict[str, Any]:
    if not isinstance(fault, PatternError):
        return {"start": 0, "end": 0, "message": str(fault), "hint": "", "severity": "error"}
    start, end = fault.span
    return {"start": start, "end": end, "message": fault.problem, "hint": fault.hint, "severity": "error"}


@lru_cache(maxsize=8)
def read(text: str, settings: tuple[tuple[str, Any], ...]) -> Written:
    """A text read, with these settings beside those in it."""
    given = dict(settings)
    try:
        pattern = parse(text)
    except UserError as fault:
        return Written(text, given, None, None, (fault,))
    if not {"dim", "enc_dim", "dec_dim"} & {*given, *pattern.settings}:
        given["dim"] = WIDTH
    try:
        return Written(text, given, pattern, compile(pattern, **given))
    except UserError as fault:
        return Written(text, given, pattern, None, (fault,))
