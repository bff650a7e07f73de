"""A text as the page has it: read as far as it can be, with its mistakes, and which of it stands for which blocks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from ..api import BlockGraph, made
from ..errors import UserError
from ..graph.resolve import resolve
from ..graph.still import Still, still
from ..language.pattern import Pattern, parse
from ..registry.kinds import Kind
from .diagnostics import diagnostics
from .notes import notes
from .scan import TYPES, scan
from .spans import nodes_of
from .values import Diagnostic, as_json

WIDTH = 512
"""Of the stream, where neither the text nor a setting says it; the command line's too."""
_NUMBERS = {type: number for number, type in enumerate(TYPES)}


@dataclass(frozen=True)
class Written:
    """A text and what was made of it.

    Attributes:
        settings: that it was made with, beside those in the text.
        pattern, graph: None where the text has a mistake.
        found: what there is to say of it.
    """

    text: str
    settings: dict[str, Any]
    pattern: Pattern | None
    graph: BlockGraph | None
    found: tuple[Diagnostic, ...]

    @cached_property
    def streams(self) -> dict[str, Still]:
        """The graph of each stream, for who only reads it; `made` has judged it."""
        streams = {} if self.graph is None else self.graph.streams()
        return {name: still(stream, readable=True) for name, stream in streams.items()}

    def told(self, side: str) -> dict[str, Any]:
        """What the page shows of the text; `side`: what its blocks are called by in the picture of a difference.

        Of each token three numbers: how far after the one before it starts, how long it is, and its place in TYPES.
        """
        numbers, at = list[int](), 0
        for token in scan(self.text):
            numbers += token.start - at, token.end - token.start, _NUMBERS[token.type]
            at = token.end
        return {"tokens": numbers, "faults": as_json(self.found), "spans": self._spans(side)}

    def _spans(self, side: str) -> list[tuple[int, int, list[str]]]:
        """Each span with the nodes that come from it, by place."""
        found: dict[tuple[int, int], list[str]] = {}
        for node, spans in {} if self.pattern is None else nodes_of(self.pattern).items():
            for span in spans:
                found.setdefault((span[0], span[1]), []).append(_beside(node, side))
        return [(start, end, nodes) for (start, end), nodes in sorted(found.items())]


def _beside(node: str, side: str) -> str:
    """A node's name in the picture of a difference: `after.a0`, `encoder after.a0`."""
    stream, _, name = node.rpartition(".")
    prefix = " ".join(part for part in (stream, side) if part)
    return f"{prefix}.{name}" if prefix else name


@lru_cache(maxsize=8)
def read(text: str, settings: str, registered: tuple[Kind, ...]) -> Written:
    """A text read, with these settings beside those in it, as JSON: `true` and `1` are not the same there.

    Args:
        registered: the kinds that there are; with others a text says something else.
    """
    beside = {name: _value(value) for name, value in json.loads(settings).items()}
    given = dict(beside)
    try:
        pattern = parse(text)
        if not {"dim", "enc_dim", "dec_dim"} & {*given, *pattern.settings}:
            given["dim"] = WIDTH
        stack = resolve(pattern, **given)
        graph, said = made(stack, pattern), notes(pattern, stack, given)
    except (UserError, TypeError) as error:
        found = diagnostics(text, **beside) or [Diagnostic(0, 0, str(error), "error")]
        return Written(text, given, None, None, tuple(found))
    found = [Diagnostic(*note.span, note.message, note.severity, note.fix) for note in said]
    return Written(text, given, pattern, graph, tuple(found))


def _value(value: Any) -> Any:
    """JSON has lists for what settings have as tuples."""
    return tuple(map(_value, value)) if isinstance(value, list) else value
