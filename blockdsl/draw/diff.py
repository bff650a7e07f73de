"""A difference in words: a line for each change, with those that many blocks have in common on one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..graph.costs import row_length, stage_title
from ..registry.kinds import kinds
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
            if graph.node_type(node) == "block"
        ]
        rows += [
            (
                f"~ {self.diff.before.block(changed.before)['kind']}: {_listed(changed.changes)}",
                _both(changed.before, changed.after),
            )
            for changed in self.diff.blocks
            if self.diff.before.node_type(changed.before) == "block"
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
        before = self.diff.before
        rows = [
            (f"{sign} {_read(graph, node)}", node)
            for sign, graph, _, nodes in self._sides()
            for node in nodes
            if graph.node_type(node) == "read"
        ]
        for changed in self.diff.blocks:
            if before.node_type(changed.before) == "read":
                what = f"~ {_read(before, changed.before)}: {_listed(changed.changes)}"
                rows.append((what, _both(changed.before, changed.after)))
        for changed in self.diff.wiring:
            rewired = ", ".join(self._rewired(change) for change in changed.changes)
            if before.node_type(changed.before) != "read":
                rewired = f"{before.nx.nodes[changed.before].get('kind', changed.before)}: {rewired}"
            rows.append((f"~ {rewired}", _both(changed.before, changed.after)))
        return _grouped(rows)

    def _rewired(self, change: Change) -> str:
        """Sources by their kinds, so that repeats are alike, or by label; by name where that says nothing."""
        if _labelled(change.name):
            old, new = ([_places(graph, sources)] for graph, sources in self._sources(change))
        else:
            old, new = ([_sort(graph, node) for node in sources] for graph, sources in self._sources(change))
        if old == new:
            old, new = list(change.before), list(change.after)
        name = "reads" if change.name == "read" else change.name
        return f"{name} {' + '.join(old) or 'none'} -> {' + '.join(new) or 'none'}"

    def _sources(self, change: Change) -> Iterable[tuple[Graph, tuple[str, ...]]]:
        return (self.diff.before, change.before), (self.diff.after, change.after)

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


def _labelled(carries: str) -> bool:
    """Whether what edges carry comes from a place that a label may name."""
    named = {option.reads for kind in kinds().values() for option in kind.reading_options()} - {"context"}
    return carries in named | {"read"}


def _read(graph: Graph, node: str) -> str:
    join = graph.nx.nodes[node]["join"]
    return f"reads {_places(graph, graph.sources(node, 'read'))}{'' if join == 'add' else f' ({join})'}"


def _places(graph: Graph, sources: Iterable[str]) -> str:
    """Places of the stream, by a label that all have, or by label or name each."""
    names = [graph.labels(source) or (source,) for source in sources]
    common = [name for name in names[0] if all(name in each for each in names)] if names else ["none"]
    return common[0] if common else ", ".join(each[0] for each in names)


def _sort(graph: Graph, node: str) -> str:
    attrs: dict[str, Any] = graph.nx.nodes[node]
    return str(attrs.get("kind") or attrs.get("scheme") or attrs["type"])


def _percent(change: Change) -> str:
    return f" ({(change.after - change.before) / change.before:+.1%})" if change.before else ""
