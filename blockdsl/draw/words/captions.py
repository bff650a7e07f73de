"""What a drawing writes on a block: its name as a pattern has it, and what it reads beside the stream."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ...graph.costs import stage_title
from ...graph.layout import Branching, Chain, Side, blocks_of, every_node, node_of, split_stages, whole_chain
from ...registry.content import by_content, content
from ...registry.kinds import Kind, kind_of
from ...registry.options import spell
from ...registry.positions import SCHEMES
from ...registry.tokens import INPUT_SCHEMES
from . import reads
from .operations import gated

if TYPE_CHECKING:
    from ...graph.graph import Graph

_Words = TypeVar("_Words")


class Captions:
    """The words for each block of one graph.

    Args:
        beside: another graph, whose usual options go without saying here too.

    Raises:
        GraphError: the graph cannot be read at all.

    Attributes:
        items: all that is on the stream; None: there is none.
        before: each node of it, and the output → what it follows.
        added: the same → the nodes whose streams are added to that of what it follows, but for its own branches.
        astray: nodes that are drawn in another stage than theirs, on a way that leaves that → their stage, in words.
        names: the labels by which nodes read others.
        read_from: nodes whose stream something further down reads → by which labels; "": without one.
        labelled: the same, of all that have labels, and with those that are read elsewhere.
        taken: labels of blocks by which others take keys, values or scores.
    """

    def __init__(self, graph: Graph, beside: Graph | None = None) -> None:
        from ...graph.lint import check_readable

        check_readable(graph)
        self.graph = graph
        self.items = whole_chain(graph)
        self._numbers: dict[Hashable, int] = {}
        self._alike: dict[str, Hashable] = {}
        self._said: dict[Hashable, Any] = {}  # what is said of all blocks that are alike
        self.beside = {node: reads.read_beside(graph, node) for node in graph.nx}
        self.usual = _usual(graph) | ({} if beside is None else _usual(beside))
        self._usual_items = {kind: tuple(usual.items()) for kind, usual in self.usual.items()}
        self.before: dict[str, str] = {}
        self.added: dict[str, list[str]] = {}
        self.gaps: set[str] = set()
        self._follows(graph.end, self._walk(self.items or (), graph.start))
        self.astray = {
            node: f"of stage {stage_title(graph, graph.nx.nodes[node]['stage'])}"
            for stage, part in split_stages(graph, self.items or ())
            for node in (every_node(part) if len(graph.stages) > 1 else ())
            if graph.nx.nodes[node]["stage"] != stage
        }
        self.names = reads.Names(graph)
        self.read_from: dict[str, set[str]] = {}
        self.taken: set[str] = set()
        for node in (node for node, read in self.beside.items() if read):
            for what, source in reads.wired(graph, node):
                name = self.names.of(node, what, source)
                if reads.of_stream(what):
                    self.read_from.setdefault(source, set()).add(name)
                else:
                    self.taken.add(name)
        for node, sources in self.added.items():
            for source in sources:
                self.read_from.setdefault(source, set()).add(self.names.of(node, "stream", source))
        read = {name for names in self.read_from.values() for name in names if name}
        self.labelled = {
            node: read & {*graph.labels(node)} | self.read_from.get(node, set())
            for node, attrs in graph.nx._node.items()
            if "labels" in attrs or node in self.read_from
        }
        self.rank: dict[str, int] = {}  # each block's place among those of its kind, as drawn
        seen: Counter[str] = Counter()
        for node in graph.nodes("block") if self.items is None else blocks_of(self.items):
            attrs = graph.nx._node[node]
            if attrs["type"] == "block":
                self.rank[node] = seen[attrs["kind"]]
                seen[attrs["kind"]] += 1

    def _walk(self, items: Chain, at: str) -> str:
        """Note what stands before each item; returns the last one."""
        for item in items:
            if isinstance(item, Side):
                self._walk(item.chain, at)
                continue
            branches = item.branches if isinstance(item, Branching) else ()
            self._follows(node_of(item), at, [self._walk(branch, at) for branch in branches])
            at = node_of(item)
        return at

    def _follows(self, node: str, at: str, branches: Sequence[str] = ()) -> None:
        streams = [*self.graph.sources(node, "base"), *self.graph.sources(node, "stream")]
        self.before[node] = at
        if not streams:
            self.gaps.add(node)
        others = [] if streams == [at] else dict.fromkeys(streams)
        self.added[node] = [source for source in others if source not in (at, *branches)]

    def alike(self, node: str) -> Hashable:
        """A key that blocks have in common of which the same is said; one that takes something by name has its own."""
        found = self._alike.get(node)
        if found is None:
            attrs, beside = self.graph.nx.nodes[node], self.beside[node]
            if self.place(node) or not reads.unnamed(self.graph, beside):
                found = node
            else:
                own = attrs["shift"], attrs["scale"], attrs["tie"]
                key = attrs["kind"], content(attrs["options"]), tuple(attrs["given"]), own, beside
                found = self._numbers.setdefault(key, len(self._numbers))
            self._alike[node] = found
        return found

    def _once(self, key: Hashable, say: Callable[[], _Words]) -> _Words:
        if key not in self._said:
            self._said[key] = say()
        return self._said[key]

    def gap(self, node: str) -> bool:
        """Whether a node reads no stream, though it stands after another."""
        return node in self.gaps

    def place(self, node: str) -> list[str]:
        """What its place in a drawing does not say: that it reads no stream, or that its stage is another one."""
        return [*(["reads no stream"] if self.gap(node) else []), *filter(None, [self.astray.get(node)])]

    def own(self, node: str) -> tuple[str, ...]:
        """The labels of a block that another takes something from by them."""
        return tuple(name for name in self.graph.labels(node) if name in self.taken) if self.taken else ()

    def options(self, node: str) -> list[str]:
        """`shown` as a pattern spells them."""
        return [text for _, text in self.shown(node)]

    def shown(self, node: str) -> list[tuple[str, str]]:
        """The options that its text sets or its kind always shows, and those that an edit made unlike its kind's.

        Each as its name, and as a pattern spells it.
        """
        return self._once(("shown", self.alike(node)), lambda: self._shown(node))

    def _shown(self, node: str) -> list[tuple[str, str]]:
        attrs = self.graph.nx.nodes[node]
        kind = kind_of(attrs["kind"])
        shown = _shown(kind, attrs["options"], tuple(attrs["given"]), self._usual_items[kind.name])
        by_label = {option.name: option.reads for option in kind.reading_options()}
        if not by_label:
            return shown
        return [(k, self._by_label(node, k, by_label[k]) if k == text and k in by_label else text) for k, text in shown]

    def _by_label(self, node: str, name: str, what: str) -> str:
        """An option that reads what another block gives, with the label of that if it has one."""
        sources = [source for source in self.graph.sources(node, what) if self.graph.labels(source)]
        return f"{name}={self.names.called(node, what, sources)}".removesuffix("=")

    def name(self, node: str) -> str:
        """The block as a pattern writes it."""
        if self.graph.node_type(node) == "read":
            return self.names.read(node)
        return self._once(("name", self.alike(node)), lambda: self._name(node))

    def _name(self, node: str) -> str:
        attrs = self.graph.nx.nodes[node]
        flags = self.options(node)
        text = attrs["kind"] + (f"({', '.join(flags)})" if flags else "")
        text += f">>{attrs['shift']}" if attrs["shift"] else ""
        if attrs["scale"] != 1:
            text += f"/{1 / attrs['scale']:g}"
        return text + (f"@{attrs['tie']}" if attrs["tie"] else "")

    def notes(self, node: str, named: bool = True) -> list[str]:
        """The block in words, with what it reads beside the stream; not `named`: alike in all copies of a repeat."""
        if self.graph.node_type(node) == "read":
            return [self.names.read_words(node), *self.place(node)]
        return self._once(("notes", named, self.alike(node)), lambda: self._notes(node, named))

    def _notes(self, node: str, named: bool) -> list[str]:
        notes = [kind_of(self.graph.block(node)["kind"]).title, *self.place(node), *self.of_itself(node)]
        if not self.beside[node]:
            return notes
        notes += [self.position(position) for position in self.graph.sources(node, "position")]
        outside = [s for s in self.graph.sources(node, "context") if self.graph.node_type(s) == "context"]
        notes += ["reads the context" for _ in outside]
        notes += ["reads the condition" for _ in self.graph.sources(node, "condition")]
        notes += self.normed(node)
        notes += [
            f"adds the scores {self._scores(source, node)}"
            for source in self.graph.sources(node, "scores")
            if not self.graph.labels(source)
        ]
        return notes + self.names.taken(node, named)

    def of_itself(self, node: str) -> list[str]:
        """What of a block is neither in its name nor among what it reads."""
        factor = self.graph.block(node)["options"]["branch_scale"]
        said = ["a GRU cell in place of the add"] if gated(self.graph, node) else []
        return [*said, *([f"branch × {factor:g}"] if factor != 1 else [])]

    def normed(self, node: str) -> list[str]:
        """Whose norm a block reads in place of one of its own."""
        return [
            f"shares the norm of {source if self.items is None else repr(self.graph.block(source)['kind'])}"
            for source in self.graph.sources(node, "normed")
        ]

    def position(self, node: str) -> str:
        """A position node in a few words."""
        attrs = self.graph.nx.nodes[node]
        scheme = attrs["scheme"]
        return SCHEMES[scheme].note(attrs) if scheme in SCHEMES else INPUT_SCHEMES[scheme]

    def _scores(self, source: str, node: str) -> str:
        """Whose scores; counted back in a drawing that names no nodes, so that repeats are alike."""
        kind = self.graph.block(source)["kind"]
        back = self.rank[node] - self.rank[source]
        if self.items is None or back < 1 or kind != self.graph.block(node)["kind"]:
            return f"of {source}"
        return f"of the previous '{kind}'" if back == 1 else f"of the '{kind}' {back} back"


@by_content
def _shown(
    kind: Kind, options: Mapping[str, Any], given: tuple[str, ...], usual: tuple[tuple[str, Any], ...]
) -> list[tuple[str, str]]:
    """Options to show, each as its name and as a pattern spells it."""
    usual_items = dict(usual).items()
    named = {*given, *(name for name in kind.shown if options.get(name) is not None)}
    wiring = "shared_norm", False  # where a norm is shared, and where not
    shown = {k: v for k, v in options.items() if k in named or ((k, v) not in usual_items and (k, v) != wiring)}
    return [(k, k if v is True else f"{k}={spell(v)}") for k, v in shown.items()]


_SET = object()  # in the place of a value that a block's text sets


def _usual(graph: Graph) -> dict[str, dict[str, Any]]:
    """For each kind, the options that more than half of the blocks whose text does not set them have."""
    values: defaultdict[str, defaultdict[tuple[str, ...], list[Any]]] = defaultdict(lambda: defaultdict(list))
    for attrs, times in graph.distinct():
        options = attrs["options"]
        values[attrs["kind"]][tuple(options)].append((*_unset(options, tuple(attrs["given"])), times))
    return {kind: dict(_most(of_kind)) for kind, of_kind in values.items()}


@by_content
def _unset(options: Mapping[str, Any], given: tuple[str, ...]) -> tuple[Any, ...]:
    """The values of options, but for those that a text sets."""
    return tuple(_SET if name in given else value for name, value in options.items())


def _most(rows: Mapping[tuple[str, ...], Sequence[tuple[Any, ...]]]) -> Iterator[tuple[str, Any]]:
    """Each name, and the value in its column that more than half have.

    Args:
        rows: by their names, each the values of blocks and how many blocks have them.
    """
    counts: defaultdict[str, Counter[Any]] = defaultdict(Counter)
    for names, of_names in rows.items():
        *columns, times = zip(*of_names, strict=True)
        for name, column in zip(names, columns, strict=True):
            if len({*column}) == 1:  # as nearly all are
                counts[name][column[0]] += sum(times)
            else:
                for value, count in zip(column, times, strict=True):
                    counts[name][value] += count
    for name, counter in counts.items():
        del counter[_SET]
        if counter and 2 * counter[value := max(counter, key=counter.__getitem__)] > counter.total():
            yield name, value
