"""The edits that are most common, at a node: a pattern put after it or in its place, or the node taken out.

Each works on a draft, so that what cannot be leaves the graph as it was. Names of other nodes stay, and with them the
keys of weights. What a text would wire by itself follows: scores that blocks pass on, context, condition, positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import networkx as nx

from ..errors import GraphError, UserError, did_you_mean
from ..language.pattern import parse
from ..registry.kinds import kind_of, kinds
from . import tokens
from .compile import build
from .given import GIVEN
from .graph import Graph
from .lint import check_readable, faults
from .nodes import carried, without_notes
from .resolve import resolve
from .restate import NoText, restated

_STREAM = ("input", "block", "sum", "read")


def insert(graph: Graph, after: str, text: str) -> list[str]:
    """Put a pattern after a node, so that what followed it follows the pattern; returns the new nodes.

    What reads the place after the node by a label, or by an edge over others, still reads that place.

    Raises:
        PatternError: the text is at fault.
        UserError: there is no such node, or nothing can follow it.
        GraphError: the graph would have a fault that it has not now; it is left as it was.
    """
    draft = _Draft(graph, after)
    if graph.nx.nodes[after].get("type") not in _STREAM:
        raise UserError(f"{after} is no place on the stream; a pattern follows {', '.join(_STREAM[:-1])} or read nodes")
    names, _ = draft.put(after, text, everything=False)
    draft.apply()
    return names


def replace(graph: Graph, node: str, text: str) -> list[str]:
    """Put a pattern in the place of a block or a read; returns the new nodes.

    A block keeps its name where a single one of its kind stands for it. Errors are those of `insert`.
    """
    draft = _Draft(graph, node)
    if graph.nx.nodes[node].get("type") in ("input", "output", "sum"):
        raise UserError(f"{node} cannot be replaced; blocks and reads can")
    names, single = draft.put(node, text, everything=True)
    kind = graph.nx.nodes[node].get("kind")
    draft.take_out(node)
    if single and draft.attrs[names[0]].get("kind") == kind:
        draft.rename(names[0], node)
        names = [node]
    draft.apply()
    return names


def remove(graph: Graph, node: str) -> None:
    """Take a block, a read or another node out, so that what followed it follows what it followed.

    A sum that is left with one branch goes too, and so do positions, conditions and contexts that nothing reads then.

    Raises:
        UserError: there is no such node, or it cannot go.
        GraphError: another block needs what it gives, or the graph would have a fault that it has not now.
    """
    draft = _Draft(graph, node)
    node_type = graph.nx.nodes[node].get("type")
    if node_type in ("input", "output"):
        raise UserError(f"{node} cannot be removed; a graph has one")
    if node_type == "sum" and graph.sources(node, "stream"):
        raise UserError(f"{node} is where branches meet; it goes with them: {', '.join(graph.sources(node, 'stream'))}")
    draft.take_out(node)
    draft.apply()


class _Draft:
    """A graph as lists: each node's attributes, and what its sources hand to it, in order."""

    def __init__(self, graph: Graph, node: str) -> None:
        if node not in graph.nx:
            hint = did_you_mean(str(node), map(str, graph.nx)) or f"nodes: {', '.join(map(str, graph.nx))}"
            raise UserError(f"there is no node '{node}'; {hint}")
        if nx.is_frozen(graph.nx):
            raise UserError("the graph is frozen, and a copy, g.copy(), is not")
        self.graph = graph
        acyclic = nx.is_directed_acyclic_graph(graph.nx)
        self.order = graph.order_as_added() if acyclic else [*graph.nx]
        copied = graph.copy().nx
        self.attrs: dict[str, dict[str, Any]] = dict(copied.nodes(data=True))
        self.into = {
            target: [(source, what) for source, edge in copied.pred[target].items() for what in carried(edge)]
            for target in copied
        }

    # Reading --------------------------------------------------------------------------------------------------------

    def sources(self, node: str, carries: str) -> list[str]:
        return [source for source, what in self.into[node] if what == carries]

    def readers(self, node: str) -> Iterator[tuple[str, int, str]]:
        """The edges from a node: target, their place there, what they carry."""
        for target, into in self.into.items():
            for at, (source, what) in enumerate(into):
                if source == node:
                    yield target, at, what

    def type(self, node: str) -> Any:
        return self.attrs[node].get("type")

    def earlier(self, node: str) -> list[str]:
        """What led to a node before the edit, in the order of the stream, itself at the end."""
        before = nx.ancestors(self.graph.nx, node) | {node}
        return [each for each in self.order if each in before]

    # Putting in ------------------------------------------------------------------------------------------------------

    def put(self, at: str, text: str, everything: bool) -> tuple[list[str], bool]:
        """The nodes of a pattern after `at`, and whether it is a single one.

        Args:
            everything: what reads the place after `at` reads the new end, also by labels and over others.
        """
        new = self._compiled(at, text)
        inner = [node for node in new.nx if new.nx.nodes[node].get("stage") == 0]
        names = {new.start: at} | dict(zip(inner, self._fresh(new, inner), strict=True))
        before = {kind.name: self._newest(at, kind.name) for kind in kinds().values() if "scores" in kind.inputs}
        follow = next((node for node in new.nx if new.nx.nodes[node].get("stage") == 1), new.end)
        end = names[new.sources(follow, "stream")[0]]
        moved = [*self._after(at, everything)]
        beside = {source for node in inner for source in new.nx.pred[node] if source not in names}
        names |= {node: self._beside(new, node) for node in new.nx if node in beside}
        stage = next((self.attrs[n]["stage"] for n in (at, *self.sources(at, "stream")) if "stage" in self.attrs[n]), 0)
        made = {names[node]: new.nx.nodes[node] | {"stage": stage} for node in inner}
        self.attrs = {n: a for old in self.attrs.items() for n, a in [old, *(made.items() if old[0] == at else ())]}
        for node in inner:
            edges = [(names[source], what) for source, edge in new.nx.pred[node].items() for what in carried(edge)]
            self.into[names[node]] = edges
        for target, place, what in moved:
            self.into[target][place] = (end, what)
        if everything:
            self._hand_over(at, [*made], end)
        self._label(self.sources(at, "stream") if everything else [at], new.labels(new.start))
        self._pass_scores(before, [*made], at)
        return [*made], len(made) == 1

    def _compiled(self, at: str, text: str) -> Graph:
        """The graph of a pattern alone, under the settings that the blocks here have in common."""
        pattern = parse(text)
        if pattern.encoder is not None or pattern.settings or len(pattern.expansion.stages) > 1:
            raise UserError(f"{text!r} is put inside a stage of a stack: it has no '|', no '=>' and no settings")
        rest = self.graph.copy()
        if at != self.order[0] and any(fault.problem.startswith(f"{at}: ") for fault in faults(rest)):
            rest.nx.remove_node(at)
        check_readable(rest)
        tokens.erase(rest)
        said = {
            node: dict.fromkeys(option.name for option in kind_of(rest.block(node)["kind"]).reading_options())
            for node in rest.nodes("block")
        }
        try:
            settings = restated(rest, said).settings
        except NoText as error:
            raise GraphError(
                f"the settings of the stack have no text, by which a pattern would be read: {error}"
            ) from None
        others = sorted(
            {rest.block(node)["kind"] for node in rest.nodes("block")}
        )  # settings that no block uses are wrong
        return Graph(build(resolve(f"{text}\n| {' '.join(others or ['f'])}", **settings)))

    def _fresh(self, new: Graph, nodes: list[str]) -> Iterator[str]:
        """Names that are free, numbered on from those of their type."""
        numbers: dict[str, int] = {}
        taken = {*self.attrs}
        for node in nodes:
            node_type, stem = new.node_type(node), node.rstrip("0123456789")
            number = numbers.get(node_type, sum(self.type(other) == node_type for other in self.attrs))
            while f"{stem}{number}" in taken:
                number += 1
            taken.add(f"{stem}{number}")
            numbers[node_type] = number + 1
            yield f"{stem}{number}"

    def _beside(self, new: Graph, node: str) -> str:
        """The context, the condition or a position of a pattern's graph as this one has it, put in where it has not."""
        attrs = without_notes(new.nx.nodes[node])
        for own, said in self.attrs.items():
            alike = without_notes(said) == attrs if attrs["type"] == "position" else said.get("type") == attrs["type"]
            if alike:
                return own
        name = node
        while name in self.attrs:
            name += "x"
        self.attrs[name], self.into[name] = dict(attrs), []
        return name

    def _after(self, at: str, everything: bool) -> Iterator[tuple[str, int, str]]:
        """The edges by which the stream goes on from a node; with `everything`, those that read its place too."""
        given = {what for kind in kinds().values() for what in kind.gives} | {"scores", "normed"}
        for target, place, what in self.readers(at):
            others = [source for source in self.sources(target, "stream") if source != at]
            skips = not self.sources(target, "base") and any(at in self.earlier(source) for source in others)
            if (everything and what not in given) or what == "base" or (what == "stream" and not skips):
                yield target, place, what

    def _hand_over(self, node: str, new: list[str], end: str) -> None:
        """What others take of a node that goes, beside its stream: its labels, its norm, its keys and values."""
        self._label([end], self.attrs[node].pop("labels", ()))
        blocks = [each for each in new if self.type(each) == "block"]
        for target, place, what in [*self.readers(node)] if len(blocks) == 1 else ():
            takes_next = what == "scores" and not self.attrs[target]["options"].get("scores")
            if target not in new and what != "stream" and not takes_next:
                self.into[target][place] = (blocks[0], what)

    def _label(self, nodes: list[str], labels: Sequence[str]) -> None:
        for node in nodes[:1] if labels else ():
            self.attrs[node]["labels"] = (*self.attrs[node].get("labels", ()), *labels)

    def _newest(self, at: str, kind: Any, before: int | None = None) -> str | None:
        """The newest block of a kind that leads to a node, or is it; `before`: of the first so many in the order."""
        leads = [node for node in self.earlier(at) if before is None or self._place[node] < before]
        return next((node for node in reversed(leads) if self.attrs[node].get("kind") == kind), None)

    @cached_property
    def _place(self) -> dict[str, int]:
        return {node: i for i, node in enumerate(self.order)}

    def _pass_scores(self, before: dict[str, str | None], new: list[str], at: str) -> None:
        """Residual attention goes on through new blocks, as in a text."""
        for kind, earlier in before.items():
            own = [node for node in new if self.attrs[node].get("kind") == kind]
            own = [node for node in own if self.attrs[node]["options"].get("residual_attn")]
            if not own:
                continue
            readers = [
                (target, place)
                for target, edges in self.into.items()
                for place, (source, what) in enumerate(edges)
                if what == "scores" and target not in new and self._reads_newest(target, source, at)
            ]
            if earlier is not None and not self.sources(own[0], "scores"):
                self.into[own[0]].append((earlier, "scores"))
            for target, place in readers:
                self.into[target][place] = (own[-1], "scores")

    def _reads_newest(self, target: str, source: str, at: str) -> bool:
        """Whether a block reads the scores of what is the newest of its kind up to a place that leads to the block.

        That may be in a branch beside the place, if it is an earlier one. A text has no other wiring by itself.
        """
        if (
            self.attrs[target]["options"].get("scores")
            or not self._place[source] <= self._place[at] < self._place[target]
        ):
            return False
        kind = self.attrs[source].get("kind")
        return at in self.earlier(target) and source == self._newest(target, kind, self._place[at] + 1)

    # Taking out ------------------------------------------------------------------------------------------------------

    def take_out(self, node: str) -> None:
        streams = self.sources(node, "stream")
        scores = self.sources(node, "scores")
        normed = [target for target, _, what in self.readers(node) if what == "normed"]
        for target in dict.fromkeys(target for target, _, _ in self.readers(node)):
            into: list[tuple[str, str]] = []
            for source, what in self.into[target]:
                if source != node:
                    into.append((source, what))
                elif what == "stream":
                    bases = self.sources(target, "base")
                    into += [(stream, what) for stream in streams if stream not in bases]
                elif what == "normed":
                    pass  # see below
                elif what == "scores" and not self.attrs[target].get("options", {}).get("scores"):
                    leads_to = target if target in self._place else node  # what replaces a block stands where that did
                    newest = self._newest(leads_to, self.attrs[node]["kind"], self._place[node])
                    into += [(source, what) for source in scores or filter(None, [newest])]
                elif any(what in kind.gives for kind in kinds().values()) or self.type(node) != "block":
                    if self.type(node) in ("block", "read"):
                        problem = f"{target} takes the {GIVEN.get(what, what)} of {node}"
                        raise GraphError(f"{node} cannot go: {problem}; change {target} first")
                elif len(streams) == 1:
                    into.append((streams[0], what))
                else:
                    raise GraphError(f"{node} cannot go: {target} reads it, and it follows {len(streams)} nodes")
            self.into[target] = into
        for i, target in enumerate(normed):
            if i == 0:
                self.attrs[target]["options"]["shared_norm"] = False
            else:
                self.into[target].append((normed[0], "normed"))
        self._label(streams, self.attrs[node].get("labels", ()))
        del self.attrs[node], self.into[node]
        self._tidy()

    def _tidy(self) -> None:
        """Take out what has nothing left to do: sums of less than two branches, and what nothing reads."""
        for node in [*self.attrs]:
            if self.type(node) == "sum" and (bases := self.sources(node, "base")):
                ends = self.sources(node, "stream")
                if len(ends) < 2 and len(bases) == 1:
                    self._dissolve(node, (ends or bases)[0])
        for node in [*self.attrs]:
            if self.type(node) in ("context", "condition", "position") and not [*self.readers(node)]:
                del self.attrs[node], self.into[node]

    def _dissolve(self, node: str, instead: str) -> None:
        for target, place, what in [*self.readers(node)]:
            self.into[target][place] = (instead, what)
        self._label([instead], self.attrs[node].get("labels", ()))
        del self.attrs[node], self.into[node]

    def rename(self, old: str, new: str) -> None:
        self.attrs = {new if node == old else node: attrs for node, attrs in self.attrs.items()}
        self.into = {
            new if target == old else target: [(new if source == old else source, what) for source, what in into]
            for target, into in self.into.items()
        }

    # The end ---------------------------------------------------------------------------------------------------------

    def made(self) -> nx.DiGraph:
        out = nx.DiGraph(**self.graph.nx.graph)
        out.add_nodes_from(self.attrs.items())
        for target in self.attrs:
            carries: dict[str, tuple[str, ...]] = {}
            for source, what in dict.fromkeys(self.into[target]):
                carries[source] = (*carries.get(source, ()), what)
            out.add_edges_from((source, target, {"carries": what}) for source, what in carries.items())
        return out

    def apply(self) -> None:
        """Make the graph what the draft says, unless that has a fault which the graph has not."""
        made = self.made()
        if not faults(self.graph) and (found := faults(Graph(made))):
            raise GraphError("\n".join(["the graph could not be lowered then:", *(f"  {fault}" for fault in found)]))
        own = self.graph.nx
        own.clear()
        own.graph.update(made.graph)
        own.add_nodes_from(made.nodes(data=True))
        for target in made:
            own.add_edges_from((source, target, edge) for source, edge in made.pred[target].items())
