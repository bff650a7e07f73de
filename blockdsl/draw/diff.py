"""A difference in words: a line for each change, with those that many blocks have in common on one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..graph.costs import row_length, stage_title
from ..registry.options import spell
from . import escape
from .captions import Captions

if TYPE_CHECKING:
    from ..graph.diff import Change, Difference
    from ..graph.graph import Graph

_COLORS = {"-": "red", "+": "green", "~": "yellow"}
_MOST = 6  # nodes named on a line


def draw(diff: Difference, color: bool = False) -> str:
    """The difference, one string with newlines and no newline at its end; `color`: by a terminal's escape codes."""
    text = "\n".join(_painted(line) if color else line for line in _Lines(diff).lines())
    return text if diff.encoder is None or not diff else f"encoder\n{draw(diff.encoder, color)}\n\ndecoder\n{text}"


def _painted(line: str) -> str:
    return escape.painted(line, _COLORS[line[2]]) if line[:2] == "  " and line[2:3] in _COLORS else line


class _Lines:
    def __init__(self, diff: Difference) -> None:
        self.diff = diff
        self.captions = Captions(diff.before), Captions(diff.after)

    def lines(self) -> Iterator[str]:
        if not self.diff:
            yield "no differences"
            return
        parts = (("blocks", self.blocks()), ("stages", self.stages()), ("settings", self.settings()))
        for title, part in (*parts, ("wiring", self.wiring())):
            lines = [*part]
            yield from [title, *lines] if lines else []
        yield from self.costs()

    def blocks(self) -> Iterator[str]:
        rows = [
            (f"{sign} {captions.name(node)}", node)
            for sign, graph, captions, nodes in self._sides()
            for node in nodes
            if graph.node_type(node) in ("block", "read")
        ]
        rows += [
            (
                f"~ {_sort(self.diff.before, changed.before)}: {_listed(changed.changes)}",
                _both(changed.before, changed.after),
            )
            for changed in self.diff.blocks
        ]
        return _grouped(rows)

    def _sides(self) -> Iterable[tuple[str, Graph, Captions, tuple[str, ...]]]:
        diff = self.diff
        return ("-", diff.before, self.captions[0], diff.removed), ("+", diff.after, self.captions[1], diff.added)

    def stages(self) -> Iterator[str]:
        for stage in self.diff.stages:
            if stage.after is None:
                yield f"  - stage {stage_title(self.diff.before, stage.before or 0)}"
            elif stage.before is None:
                yield f"  + stage {stage_title(self.diff.after, stage.after)}"
            else:
                yield f"  ~ stage {stage_title(self.diff.before, stage.before)}: {_listed(stage.changes)}"

    def settings(self) -> Iterator[str]:
        for sign, graph, captions, nodes in self._sides():
            for node in nodes:
                node_type = graph.node_type(node)
                if node_type not in ("block", "read"):
                    yield f"  {sign} {captions.position(node) if node_type == 'position' else node}"
        if self.diff.stack:
            yield f"  ~ {_listed(self.diff.stack)}"
        for changed in self.diff.settings:
            yield f"  ~ {_both(changed.before, changed.after)}: {_listed(changed.changes)}"

    def wiring(self) -> Iterator[str]:
        yield from _grouped(
            (
                f"~ {_sort(self.diff.before, changed.before)}: "
                + ", ".join(self._rewired(change) for change in changed.changes),
                _both(changed.before, changed.after),
            )
            for changed in self.diff.wiring
        )

    def _rewired(self, change: Change) -> str:
        """Sources by their kinds, so that repeats are alike; by name where that says nothing."""
        old = [_sort(self.diff.before, node) for node in change.before]
        new = [_sort(self.diff.after, node) for node in change.after]
        if old == new:
            old, new = list(change.before), list(change.after)
        return f"{change.name} {' + '.join(old) or 'none'} -> {' + '.join(new) or 'none'}"

    def costs(self) -> Iterator[str]:
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
    """Lines of (sign and what, node), those alike on one: `~ 12 × a: heads 8 -> 16   a0, a2, ...`."""
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


def _listed(changes: Iterable[Change]) -> str:
    return ", ".join(f"{change.name} {spell(change.before)} -> {spell(change.after)}" for change in changes)


def _both(before: str, after: str) -> str:
    return before if before == after else f"{before} -> {after}"


def _sort(graph: Graph, node: str) -> str:
    attrs: dict[str, Any] = graph.nx.nodes[node]
    return str(attrs.get("kind") or attrs.get("scheme") or attrs["type"])


def _percent(change: Change) -> str:
    return f" ({(change.after - change.before) / change.before:+.1%})" if change.before else ""
