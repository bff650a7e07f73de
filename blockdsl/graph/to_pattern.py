"""A graph back to its text, edits included: blocks in order, parallel branches, labels for what is read further on.

A text says one stream, whose items stand one after another. So a graph has a text where each node reads the node before
it, and beside that only what lies on the way there: an earlier place gets a label, and the later one a read of it. What
has no text is refused with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import GraphError, PatternError
from ..language import syntax
from ..language.bounds import MAX_BLOCKS
from ..language.expand import BlockSpec, ParallelSpec, ReadSpec, Spec
from ..language.join import join, of_both
from ..language.labels import LabelSpec
from ..language.macros import MACROS
from ..language.pattern import Pattern, parse
from ..language.unparse import body_of, is_name, ties_of
from ..registry.kinds import kind_of, kinds
from ..registry.reads import JOINS
from .graph import Graph
from .lint import check
from .places import Naming, Wish, namings
from .restate import NoText, restated


@dataclass(frozen=True)
class _Skip:
    """An edge of the stream from an earlier place, beside the one from the item before."""

    source: str
    target: str


@dataclass(frozen=True)
class _Branches:
    sum: str
    branches: tuple[tuple[_Item, ...], ...]


_Item = str | _Skip | _Branches
_Reader = tuple[str | _Skip, str]
"""What reads an earlier place, and the option that does, if it is a block's."""


def to_pattern(graph: Graph) -> Pattern:
    """The text of a graph. That it compiles to the same model is for the caller to make sure of.

    Raises:
        GraphError: the graph cannot be lowered, or has no text; the message says why.
    """
    check(graph)
    streams = graph.streams()
    try:
        if "" in streams:
            return _Writer(graph).pattern()
        encoder = _Writer(streams["encoder"])
        before = str(encoder.pattern())
        decoder = _Writer(streams["decoder"], taken=encoder.labels)
        said = of_both(encoder.graph.causal, decoder.graph.causal, graph.tie_token_emb)
        return parse(join(before, str(decoder.pattern()), said))
    except NoText as error:
        raise GraphError(f"the graph has no text: {error}") from None
    except PatternError as error:
        raise GraphError(f"the graph has no text: {error.problem}") from None


class _Writer:
    def __init__(self, graph: Graph, taken: Collection[str] = ()) -> None:
        self.graph = graph
        self.rank = {node: i for i, node in enumerate(graph.order())}
        self.end, self.last = graph.end, len(graph.stages) - 1  # found by going through all nodes
        self.seen: set[str] = set()
        self.items: list[_Item] = []
        self.place = {graph.start: 0}  # node of the stream → how many items lead to it
        for item in self._back(graph.end, graph.sources(graph.end, "stream"), graph.start):
            if not self._only_a_place(item):
                self.items.append(item)
            if not isinstance(item, _Skip):
                self.place[item.sum if isinstance(item, _Branches) else item] = len(self.items)
        self.said: dict[str, dict[str, Any]] = {}  # block → options that an edge says, see `restated`
        self.readers: dict[_Reader, Wish] = {}
        self._find_readers()
        self.restated = restated(graph, self.said)
        ties = Counter(graph.nx.nodes[node].get("tie") for node in self.rank)
        self.shared = {tie for tie, times in ties.items() if times > 1} - {None}
        self.taken, self.labels = taken, set[str]()  # of ties: of the other stream, and its own

    def pattern(self) -> Pattern:
        """The shortest of the texts that differ in their labels."""
        kept: dict[str, list[int]] = {}
        for node, place in sorted(self.place.items(), key=lambda pair: pair[1]):
            for name in self.graph.labels(node):
                if is_name(name) and place not in kept.get(name, ()):
                    kept.setdefault(name, []).append(place)
        arguments = (syntax.Argument(name, value) for name, value in self.restated.settings.items())
        head = syntax.text_of(syntax.statement_pieces(syntax.Settings(tuple(arguments))))
        bodies = (self._body(naming) for naming in namings(kept, [*self.readers.values()], (*kinds(), *MACROS)))
        return parse(f"{head} {min(bodies, key=len)}", max(MAX_BLOCKS, len(self.rank)))

    # The way back ----------------------------------------------------------------------------------------------------

    def _back(self, target: str, streams: Sequence[str], start: str) -> tuple[_Item, ...]:
        """What lies between `start`, left out, and `target`. A sum of less than two branches stands for its place."""
        items: list[_Item] = []
        while True:
            *skips, at = sorted(streams, key=self.rank.__getitem__)
            items += [_Skip(source, target) for source in reversed(skips)]
            if at == start:
                return tuple(reversed(items))
            if at in self.seen or self.rank[at] < self.rank[start]:
                raise NoText(f"{target} reads {at}, which is not on the way from {start} to it")
            self.seen.add(at)
            bases, streams = self.graph.sources(at, "base"), self.graph.sources(at, "stream")
            branches = [self._back(at, [end], bases[0]) for end in streams if end not in bases] if bases else []
            if len(branches) > 1:
                within = (tuple(item for item in branch if not self._only_a_place(item)) for branch in branches)
                items.append(_Branches(at, tuple(within)))
            else:
                items += [at, *(item for branch in branches for item in reversed(branch))]
            target, streams = at, bases or streams

    def _only_a_place(self, item: _Item) -> bool:
        """Whether it is a sum that adds no branches up, which no text writes."""
        return isinstance(item, str) and self.graph.node_type(item) == "sum"

    # What is read ----------------------------------------------------------------------------------------------------

    def _find_readers(self) -> None:
        newest: dict[str, str] = {}
        for at, item in enumerate(self.items):
            newest = self._readers(item, at, newest)

    def _readers(self, item: _Item, at: int, newest: dict[str, str]) -> dict[str, str]:
        """Note what an item reads after so many others; returns each kind's newest block, whose scores are added."""
        if isinstance(item, _Skip):
            self.readers[item, ""] = Wish(at, (self._place(item.source, item.target),))
        elif isinstance(item, _Branches):
            after = dict(newest)
            for branch in item.branches:
                here = dict(newest)
                for inner in branch:
                    here = self._readers(inner, at, here)
                after |= {kind: node for kind, node in here.items() if node != newest.get(kind)}
            return after
        elif self.graph.node_type(item) == "read":
            self.readers[item, ""] = Wish(at, self._places(item))
        elif self.graph.node_type(item) == "block":
            return self._block_reads(item, at, newest)
        return newest

    def _block_reads(self, node: str, at: int, newest: dict[str, str]) -> dict[str, str]:
        kind, said = kind_of(self.graph.block(node)["kind"]), self.said.setdefault(node, {})
        for option in kind.reading_options():
            said[option.name] = None
            if self.graph.block(node)["options"][option.name]:
                (source,) = self.graph.sources(node, option.reads)
                self.readers[node, option.name] = Wish(at, (self._place(source, node),), words=False)
        if "scores" not in kind.inputs:
            return newest
        added, usual = next(iter(self.graph.sources(node, "scores")), None), newest.get(kind.name)
        by_label = next((option.name for option in kind.reading_options() if option.reads == "scores"), None)
        if by_label is not None and added is not None and added != usual:
            self.readers[node, by_label] = Wish(at, (self._place(added, node),), words=False)
        elif added is not None and added != usual:
            raise NoText(f"{node} adds the scores of {added}, and the last ones before it are those of {usual}")
        labelled = (node, by_label) in self.readers
        said["residual_attn"] = None if usual is None or labelled else added is not None
        return newest | {kind.name: node}

    def _places(self, node: str) -> tuple[int, ...]:
        """Of what a read joins."""
        sources = self.graph.sources(node, "read")
        places = [self._place(source, node) for source in sources]
        if places != sorted({*places}):
            learned = JOINS[self.graph.nx.nodes[node]["join"]].shapes(1, 1)
            if learned or len({*places}) < len(places):
                raise NoText(f"{node} joins {', '.join(sources)} in this order, and a text reads earlier ones first")
        return tuple(sorted(places))

    def _place(self, source: str, target: str) -> int:
        if source in self.place:
            return self.place[source]
        if source in self.seen:
            raise NoText(f"{target} reads {source} in a parallel branch, where no label may stand")
        raise NoText(
            f"{target} reads {source}, which is not on the way of the stream to it; branches have a text where they "
            "start at one node and meet in a sum"
        )

    # Text ------------------------------------------------------------------------------------------------------------

    def _body(self, naming: Naming) -> str:
        answers = dict(zip(self.readers, naming.answers, strict=True))
        stages: list[list[Spec]] = [[] for _ in self.graph.stages]
        stage = self._stage(self.items[0]) if self.items else 0
        for at, item in enumerate((*self.items, None)):
            here = [name for name, places in naming.occurrences.items() if at in places]
            stages[stage] += [LabelSpec(name, 0, stage, syntax.NOWHERE) for name in here]
            if item is not None:
                stage = self._stage(item)
                stages[stage].append(self._spec(item, answers))
        filled = {self._stage(item) for item in self.items}
        for number, name in enumerate(self.graph.stages):
            if number not in filled:
                raise NoText(f"stage {number} has no block")
            if name is not None and (not is_name(name) or name == "set"):
                raise NoText(f"{name!r} is no name for a stage: a letter, then letters, digits and '_'")
        ties = ties_of(stages, self.taken)
        self.labels |= {*ties.labels.values(), *ties.groups.values()}
        bodies = [body_of(specs, ties, name) for name, specs in zip(self.graph.stages, stages, strict=True)]
        return " | ".join(syntax.text_of(syntax.body_pieces(body)) for body in bodies)

    def _stage(self, item: _Item) -> int:
        if isinstance(item, _Branches):
            stage: int = self.graph.nx.nodes[item.sum]["stage"]
            for inner in (inner for branch in item.branches for inner in branch):
                if (other := self._stage(inner)) != stage:
                    raise NoText(f"a branch of {item.sum} is in stage {other}, and its sum in stage {stage}")
            return stage
        node = item.target if isinstance(item, _Skip) else item
        return self.last if node == self.end else self.graph.nx.nodes[node]["stage"]

    def _spec(self, item: _Item, answers: dict[_Reader, tuple[str, str | int]]) -> Spec:
        if isinstance(item, _Branches):
            return ParallelSpec(
                tuple(tuple(self._spec(inner, answers) for inner in branch) for branch in item.branches)
            )
        stage = self._stage(item)
        if isinstance(item, _Skip):
            name, which = answers[item, ""]
            return ReadSpec(name, which, "add", None, (), 1, None, stage, syntax.NOWHERE)
        attrs = self.graph.nx.nodes[item]
        tie = attrs["tie"] if attrs["tie"] in self.shared else None
        if attrs["type"] == "read":
            name, which = answers[item, ""]
            divide = 1 / attrs["scale"]
            return ReadSpec(name, which, attrs["join"], attrs["init"], (), divide, tie, stage, syntax.NOWHERE)
        given = self.restated.given[item] | {
            option: name for (node, option), (name, _) in answers.items() if node == item
        }
        divide = self.restated.divides[item]
        return BlockSpec(attrs["kind"], given, self.restated.shifts[item], divide, tie, stage, syntax.NOWHERE)
