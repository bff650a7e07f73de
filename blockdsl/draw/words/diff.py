"""A difference in words: a line for each change, with those that many blocks have in common on one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from ...graph.costs import row_length
from .. import escape
from . import changes
from .captions import Captions
from .changes import change_words, in_effect, read, rewired
from .details import Details

if TYPE_CHECKING:
    from ...graph.diff import Change, Difference
    from ...graph.graph import Graph

_COLORS = {"-": "red", "+": "green", "~": "yellow"}
ARROW = " -> "  # every terminal can show it
_MOST = 6  # nodes named on a line


def draw(diff: Difference, color: bool = False) -> str:
    """The difference, one string with newlines and no newline at its end; `color`: by a terminal's escape codes."""
    if diff.encoder is None or not diff:
        return _text(diff, diff, color)
    encoder, decoder = changes.streams(diff).values()
    return f"encoder\n{draw(encoder, color)}\n\ndecoder\n{_text(decoder, diff, color)}"


def _text(stream: Difference, whole: Difference, color: bool) -> str:
    """What differs of a stream, and the costs of the whole model."""
    lines = ChangeLines(stream)
    every = (*lines.head(), *lines.changes(), *ChangeLines(whole).costs())
    return "\n".join(_painted(line) if color else line for line in every)


def _painted(line: str) -> str:
    return escape.painted(line, _COLORS[line[2]]) if line[:2] == "  " and line[2:3] in _COLORS else line


class ChangeLines:
    """The lines of a difference.

    Args:
        captions: of both graphs, where a drawing has them.
    """

    def __init__(self, diff: Difference, captions: tuple[Captions, Captions] | None = None) -> None:
        self.diff = diff
        self._captions = captions

    @cached_property
    def captions(self) -> tuple[Captions, Captions]:
        """The words for what only one graph has."""
        return self._captions or (Captions(self.diff.before), Captions(self.diff.after))

    def head(self) -> Iterator[str]:
        """How much is alike, and what differs of the stacks as a whole."""
        if self.diff:
            details = [Details(own.graph, own, self.diff.seq_len) for own in self.captions]
            for words, _ in changes.above(self.diff, details, changes.everywhere(self.diff)):
                yield " · ".join(words).replace(changes.ARROW, ARROW)

    def changes(self) -> Iterator[str]:
        """All but the costs, under titles."""
        if not self.diff:
            yield "no differences"
            return
        parts = (("blocks", self.blocks()), ("stages", self.stages()), ("settings", self.settings()))
        for title, part in (*parts, ("wiring", self.wiring())):
            lines = [*part]
            yield from [title, *lines] if lines else []

    def blocks(self) -> Iterator[str]:
        rows = [
            (f"{sign} {self.captions[side].name(node)}", node)
            for sign, graph, side, nodes in self._sides()
            for node in nodes
            if graph.node_type(node) == "block"
        ]
        rows += [
            (
                f"~ {self.diff.before.block(changed.before)['kind']}: "
                + change_words(in_effect(self.diff, changed), ARROW),
                _both(changed.before, changed.after),
            )
            for changed in self.diff.blocks
            if self.diff.before.node_type(changed.before) == "block"
        ]
        return _grouped(rows)

    def _sides(self) -> Iterable[tuple[str, Graph, int, tuple[str, ...]]]:
        diff = self.diff
        return ("-", diff.before, 0, diff.removed), ("+", diff.after, 1, diff.added)

    def stages(self) -> Iterator[str]:
        return (f"  {line}" for line in changes.stage_changes(self.diff, ARROW))

    def settings(self) -> Iterator[str]:
        for sign, graph, side, nodes in self._sides():
            for node in nodes:
                node_type = graph.node_type(node)
                if node_type not in ("block", "read"):
                    yield f"  {sign} {self.captions[side].position(node) if node_type == 'position' else node}"
        if self.diff.stack:
            yield f"  ~ {change_words(self.diff.stack, ARROW)}"
        for changed in self.diff.settings:
            yield f"  ~ {_both(changed.before, changed.after)}: {change_words(in_effect(self.diff, changed), ARROW)}"

    def wiring(self) -> Iterator[str]:
        before = self.diff.before
        rows = [
            (f"{sign} {read(graph, node)}", node)
            for sign, graph, _, nodes in self._sides()
            for node in nodes
            if graph.node_type(node) == "read"
        ]
        for changed in self.diff.blocks:
            if before.node_type(changed.before) == "read":
                what = f"~ {read(before, changed.before)}: {change_words(changed.changes, ARROW)}"
                rows.append((what, _both(changed.before, changed.after)))
        for changed in self.diff.wiring:
            said = ", ".join(rewired(self.diff, change, ARROW) for change in changed.changes)
            if before.node_type(changed.before) != "read":
                said = f"{before.nx.nodes[changed.before].get('kind', changed.before)}: {said}"
            rows.append((f"~ {said}", _both(changed.before, changed.after)))
        return _grouped(rows)

    def costs(self) -> Iterator[str]:
        """Before and after, under their title; of graphs that are one there are none."""
        if not self.diff:
            return
        lengths = [f"{row_length(graph, self.diff.seq_len):,}" for graph in (self.diff.before, self.diff.after)]
        yield f"costs{'' if self.diff.encoder is None else ' of both'}, at {_both(*lengths)} tokens a row"
        titles = {"active_parameters": "active parameters", "flops": "FLOPs", "kv_cache_bytes": "cache bytes"}
        rows = [
            (titles.get(change.name, change.name), f"{change.before:,}", f"{change.after:,}", _percent(change))
            for change in self.diff.costs
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        for title, before, after, percent in rows:
            same = before == after
            sides = before.rjust(widths[1]) + ("" if same else f" -> {after.rjust(widths[2])}{percent}")
            yield f"  {title:{widths[0]}}  {sides}"


def _grouped(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """ChangeLines of (sign and what, node), those alike on one: `~ 12 × a: heads 8 -> 16   a0, a2, ...`."""
    groups: dict[str, list[str]] = {}
    for text, node in rows:
        groups.setdefault(text, []).append(node)
    texts = {
        text: f"  {text[0]} {f'{len(nodes):,} × ' if len(nodes) > 1 else ''}{text[2:]}"
        for text, nodes in groups.items()
    }
    width = max((len(text) for text in texts.values() if len(text) <= _COLUMN), default=0)
    for text, nodes in groups.items():
        more = f", ... and {len(nodes) - _MOST:,} more" if len(nodes) > _MOST else ""
        yield f"{texts[text]:{width}}   {', '.join(nodes[:_MOST])}{more}"


_COLUMN = 60  # lines up to this width name their nodes in one column


def _both(before: str, after: str) -> str:
    return before if before == after else f"{before} -> {after}"


def _percent(change: Change) -> str:
    return f" ({(change.after - change.before) / change.before:+.1%})" if change.before else ""
