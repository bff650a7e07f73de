"""What is right in a pattern and perhaps not meant: `blockdsl check` prints it, an editor underlines it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import Span
from ..graph.resolve import ResolvedPattern
from ..language.expand import ReadSpec
from ..language.pattern import Pattern
from ..language.streams import attending
from ..language.syntax import Definition
from .scan import scan
from .spans import nodes_of
from .values import Edit


@dataclass(frozen=True)
class Note:
    """One of them; `severity` is "warning" where something that was written has no effect, else "note"."""

    span: Span
    message: str
    severity: str = "warning"
    fix: Edit | None = None


def notes(pattern: Pattern, stack: ResolvedPattern, settings: Mapping[str, Any]) -> list[Note]:
    """All of a pattern that is resolved, as `stack`, with these settings beside its own.

    Raises:
        UserError: blocks cannot read what they are wired to, which is found by making the graph.
    """
    return [*_unused(pattern), *_unread(pattern), *_overwritten(pattern, stack, settings), *_unfed(pattern, stack)]


def _unused(pattern: Pattern) -> list[Note]:
    names, out = pattern.unused_definitions, []
    for statement in pattern.statements:
        if isinstance(statement, Definition) and statement.name in names:
            start, end = statement.span
            where = Span(start, start + len(statement.name))
            line_end = pattern.source[end : end + 1] in (" ", "\n")
            gone = Edit(start, end + line_end, "")
            out.append(Note(where, f"'{statement.name}' is defined and not used", fix=gone))
    return out


def _unread(pattern: Pattern) -> list[Note]:
    names = pattern.unread_labels
    written = {piece.text: piece for piece in scan(pattern.source) if piece.type == "label"} if names else {}
    spans = {name: Span(written[name].start - 1, written[name].end) for name in names}
    return [Note(span, f"^{name} names a place that nothing reads") for name, span in spans.items()]


def _overwritten(pattern: Pattern, stack: ResolvedPattern, settings: Mapping[str, Any]) -> list[Note]:
    soft = any(isinstance(spec, ReadSpec) and spec.join == "soft" for spec in pattern.expansion.flat())
    if not (stack.wired or soft):
        return []
    from ..api import compile  # what wires blocks to one another is found by making the graph: networkx

    graph = compile(pattern, **settings)
    unused = {f"{side}.{node}" if side else node: node for side, of in graph.streams().items() for node in of.unused()}
    if not unused:
        return []
    where = nodes_of(pattern)
    span = next((where[node][0] for node in unused if node in where), Span(0, 1))
    message = f"nothing reads the output of {', '.join(unused.values())}: a later read by soft takes the stream's place"
    return [Note(Span(*span), message)]


def _unfed(pattern: Pattern, stack: ResolvedPattern) -> list[Note]:
    block = next(attending(pattern.expansion.blocks()), None)
    if block is None or stack.encoder is not None or stack.settings["context"] is not None:
        return []
    message = f"{block.kind} attends to a context: give it when calling, or write (a f)*6 => (a c f)*6"
    return [Note(block.span, message, "note")]
