"""What differs between two graphs: their blocks, matched in order, and all around them.

Names of nodes, the labels of ties and the text a graph was made from do not count: a graph differs where the model
that it lowers to does, or its stages are called otherwise.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from ..registry.state import item_bytes
from . import costs
from .align import GAP, align
from .digest import same_nodes
from .graph import Graph
from .matched import BlockKey, Compared, matched_blocks, matched_positions, own, said_of, unlike
from .nodes import EDGES, carried, without_notes

D = TypeVar("D", bound="Difference")


@dataclass(frozen=True)
class Change:
    """A value that differs: an option, an attribute, or the names of the nodes whose edges bring something."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Changed:
    """What both graphs have, by its node in each, and what of it differs."""

    before: str
    after: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class StageChange:
    """A stage by its index in each graph, None where there is none; its changes are of `name` and `starts at`."""

    before: int | None
    after: int | None
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Difference:
    """What differs between two graphs; false when they are the same model.

    Attributes:
        before, after: the graphs.
        pairs: nodes that belong together, of every type.
        removed, added: blocks, positions, conditions and contexts that only one of them has.
        blocks: options, `shift`, `scale` and `tie` of blocks; of reads `init`, `scale` and `tie`.
        stack: `dim` and `causal`; of two streams `tie_token_emb`, and `encoder`, its text, where one has none.
        settings: attributes of the input, the output, positions and the condition.
        wiring: what a block or the output reads: `stream`, `context`, `condition`, `position`, `scores`, `normed`. What
            merely follows from a block that is gone or new does not count.
        stages: those that are new, gone, named otherwise, or start at another block.
        costs: `parameters`, `flops` and `kv_cache_bytes` (of float32), changed or not; with experts
            `active_parameters`.
        seq_len: tokens a row that the costs are for; a row of a model that reads images is its patches.
        encoder: what differs between the encoders that both read, if they do.
    """

    before: Graph = field(repr=False)
    after: Graph = field(repr=False)
    pairs: tuple[tuple[str, str], ...] = field(repr=False)
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    blocks: tuple[Changed, ...] = ()
    stack: tuple[Change, ...] = ()
    settings: tuple[Changed, ...] = ()
    wiring: tuple[Changed, ...] = ()
    stages: tuple[StageChange, ...] = ()
    costs: tuple[Change, ...] = ()
    seq_len: int = 1024
    encoder: Difference | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        parts = (self.removed, self.added, self.blocks, self.stack, self.settings, self.wiring, self.stages)
        return any((*parts, self.encoder))

    def status(self) -> tuple[dict[str, str], dict[str, str]]:
        """Each node of the first graph → "same", "changed" or "removed"; of the second → "same", "changed", "added"."""
        changed = {(c.before, c.after) for c in (*self.blocks, *self.settings, *self.wiring)}
        ours = dict.fromkeys(self.before.nx, "removed" if self else "same")
        theirs = dict.fromkeys(self.after.nx, "added" if self else "same")
        for node, other in self.pairs:
            ours[node] = theirs[other] = "changed" if (node, other) in changed else "same"
        return ours, theirs

    def to_json(self) -> str:
        """All of it but the graphs."""
        plain = {
            "equal": not self,
            "removed": [{"node": node, **_shown(self.before, node)} for node in self.removed],
            "added": [{"node": node, **_shown(self.after, node)} for node in self.added],
            "blocks": [asdict(changed) for changed in self.blocks],
            "stack": [asdict(change) for change in self.stack],
            "settings": [asdict(changed) for changed in self.settings],
            "wiring": [asdict(changed) for changed in self.wiring],
            "stages": [asdict(stage) for stage in self.stages],
            "costs": [asdict(change) for change in self.costs],
            "seq_len": self.seq_len,
            "pairs": self.pairs,
        }
        if self.encoder is not None:
            plain["encoder"] = json.loads(self.encoder.to_json())
        return json.dumps(plain, indent=1)

    @classmethod
    def between(cls: type[D], before: Graph, after: Graph, seq_len: int = 1024) -> D:
        """What differs between two graphs.

        Args:
            seq_len: tokens a row that costs are given for.

        Raises:
            UserError: seq_len is no number of tokens.
            GraphError: a graph cannot be read at all.
        """
        same = same_nodes(before, after)
        costs = _cost_changes(before, after, seq_len)
        encoders = _between_encoders(cls, before.encoder, after.encoder, seq_len)
        if same is not None:
            alike = dict(matched_positions(before, after)) | same
            in_order = tuple((node, alike[node]) for node in before.nx if node in alike)
            return cls(before, after, in_order, costs=costs, seq_len=seq_len, encoder=encoders)
        keys: dict[Hashable, BlockKey] = {}
        sides = Compared(before, keys), Compared(after, keys)
        blocks = matched_blocks(*sides)
        positions = matched_positions(before, after)
        single = [(before.start, after.start), (before.end, after.end)]
        contexts, conditions = (
            list(zip(before.nodes(node_type), after.nodes(node_type), strict=False))
            for node_type in ("context", "condition")
        )
        known: dict[Hashable, int] = {}
        ours, theirs = (
            _Wiring(side, [pair[i] for pair in blocks], [pair[i] for pair in positions], known)
            for i, side in enumerate(sides)
        )
        pairs = (*single, *contexts, *conditions, *positions, *blocks, *_matched_sums(ours, theirs))
        removed, added = (
            [node for node in side.order if node not in paired]
            for side, paired in zip(sides, map(set, zip(*pairs, strict=True)), strict=True)
        )
        return cls(
            before,
            after,
            pairs,
            tuple(node for node in removed if before.nx.nodes[node]["type"] != "sum"),
            tuple(node for node in added if after.nx.nodes[node]["type"] != "sum"),
            blocks=_block_changes(sides, blocks),
            stack=_changes(*(_stack(graph, other) for graph, other in ((before, after), (after, before)))),
            settings=_found(
                (*pair, _setting_changes(before, after, pair)) for pair in (*single, *conditions, *positions)
            ),
            wiring=_found((*pair, _wiring_changes(ours, theirs, pair)) for pair in (*blocks, single[1])),
            stages=_stage_changes(sides, blocks),
            costs=costs,
            seq_len=seq_len,
            encoder=encoders,
        )


def _between_encoders(owner: type[D], before: Graph | None, after: Graph | None, seq_len: int) -> D | None:
    return None if before is None or after is None else owner.between(before, after, seq_len)


def _stack(graph: Graph, other: Graph) -> dict[str, Any]:
    """What a graph says of itself as a whole; its encoder if the other has none."""
    said: dict[str, Any] = {"dim": graph.dim, "causal": graph.causal, "tie_token_emb": graph.tie_token_emb}
    encoder = graph.encoder
    return said | {"encoder": None if encoder is None or other.encoder is not None else encoder.pattern}


def _found(changed: Iterable[tuple[str, str, tuple[Change, ...]]]) -> tuple[Changed, ...]:
    return tuple(Changed(before, after, changes) for before, after, changes in changed if changes)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    return tuple(Change(name, before.get(name), after.get(name)) for name in unlike(before, after))


# Blocks ----------------------------------------------------------------------------------------------------------


def _block_changes(sides: tuple[Compared, Compared], pairs: Sequence[tuple[str, str]]) -> tuple[Changed, ...]:
    ours, theirs = (_ties(side.graph, [pair[i] for pair in pairs]) for i, side in enumerate(sides))
    same = _same_ties(ours, theirs)
    found = []
    for (before, after), old, new in zip(pairs, ours, theirs, strict=True):
        alike = sides[0].blocks[before].own is sides[1].blocks[after].own
        changes = () if alike else _own_changes(sides, before, after)
        if (old is None) != (new is None) or (old is not None and same.get(old) != new):
            changes += (Change("tie", old, new),)
        found.append((before, after, changes))
    return _found(found)


def _own_changes(sides: tuple[Compared, Compared], before: str, after: str) -> tuple[Change, ...]:
    """Options and suffixes; options that come to the same say the same: f(inner=2048) is f where dim is 512."""
    graphs = [side.graph for side in sides]
    changes = _changes(*(own(graph.nx.nodes[node]) for graph, node in zip(graphs, (before, after), strict=True)))
    if not changes or graphs[0].node_type(before) != "block":
        return changes
    was, now = (vars(graph.completed(node)) for graph, node in zip(graphs, (before, after), strict=True))
    return tuple(c for c in changes if was.get(c.name, c.before) != now.get(c.name, c.after))


def _ties(graph: Graph, nodes: Sequence[str]) -> list[str | None]:
    """The label of the parameters that each node shares with another of these; None where it shares none."""
    labels = [graph.nx.nodes[node]["tie"] for node in nodes]
    counts = Counter(labels)
    return [label if counts[label] > 1 else None for label in labels]


def _same_ties(ours: Sequence[str | None], theirs: Sequence[str | None]) -> dict[str, str]:
    """Labels of the first → those of the second that stand for the same, by most of the nodes that have them."""
    out: dict[str, str] = {}
    for (old, new), _ in Counter(zip(ours, theirs, strict=True)).most_common():
        if old is not None and new is not None and old not in out and new not in out.values():
            out[old] = new
    return out


# The model around them ---------------------------------------------------------------------------------------------


def _setting_changes(before: Graph, after: Graph, pair: tuple[str, str]) -> tuple[Change, ...]:
    return _changes(said_of(before, pair[0]), said_of(after, pair[1]))


def _cost_changes(before: Graph, after: Graph, seq_len: int) -> tuple[Change, ...]:
    sizes = costs.sizes(seq_len, 1, None)
    old, new = costs.total(before, sizes), costs.total(after, sizes)
    item = item_bytes("float32")
    return (
        Change("parameters", old.parameters, new.parameters),
        *([Change("active_parameters", old.active, new.active)] if old.idle or new.idle else []),
        Change("flops", old.flops, new.flops),
        Change("kv_cache_bytes", old.cache_bytes(item), new.cache_bytes(item)),
    )


# Stages --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stage:
    """Where a stage starts, as the number of matched blocks before it, and its name.

    `matched`: its first block is one of them.
    """

    start: int
    name: str | None
    matched: bool


def _stage_changes(sides: tuple[Compared, Compared], pairs: Sequence[tuple[str, str]]) -> tuple[StageChange, ...]:
    (ours, at), (theirs, to) = (_stages(side, {pair[i] for pair in pairs}) for i, side in enumerate(sides))
    matched = align(ours, theirs, _stage_price)
    found = [StageChange(i, j, _unlike(ours[i], theirs[j], at[i], to[j])) for i, j in matched]
    found += [StageChange(i, None) for i in {*range(len(ours))} - {i for i, _ in matched}]
    found += [StageChange(None, j) for j in {*range(len(theirs))} - {j for _, j in matched}]
    changed = [stage for stage in found if stage.changes or stage.before is None or stage.after is None]
    return tuple(sorted(changed, key=lambda stage: (stage.after if stage.before is None else stage.before) or 0))


def _stages(side: Compared, matched: set[str]) -> tuple[list[_Stage], list[str | None]]:
    """The stages, and the block that each starts with; one without a block starts where the next does."""
    graph, names = side.graph, side.graph.stages
    first: dict[int, tuple[int, str]] = {}
    passed = 0
    for node in side.order:
        if graph.node_type(node) == "block":
            first.setdefault(graph.nx.nodes[node]["stage"], (passed, node))
            passed += node in matched
    starts: list[tuple[int, str | None]] = []
    after: tuple[int, str | None] = passed, None
    for index in reversed(range(len(names))):
        after = first.get(index, after)
        starts.append(after)
    starts.reverse()
    stages = [_Stage(start, name, node in matched) for (start, node), name in zip(starts, names, strict=True)]
    return stages, [node for _, node in starts]


def _stage_price(one: _Stage, other: _Stage) -> int | None:
    moved, renamed = one.start != other.start, one.name != other.name
    return None if moved and renamed else (GAP // 2 if moved or renamed else 0) + (one.matched != other.matched)


def _unlike(one: _Stage, other: _Stage, at: str | None, to: str | None) -> tuple[Change, ...]:
    names = _changes({"name": one.name}, {"name": other.name})
    return names + ((Change("starts at", at, to),) if one.start != other.start else ())


# Wiring --------------------------------------------------------------------------------------------------------------


class _Wiring:
    """What the nodes of a graph read, said in terms of what both graphs have.

    A block that the other graph lacks is looked through, to what it reads itself, and a branch of nothing but such
    blocks is no branch. So what a block reads is the same in both where nothing but these blocks lies between.

    Attributes:
        graph: the graph.
        stream, scores: node → codes of what it reads; of one code table for both graphs.
        sums: the code of what a sum gives → the sum.
    """

    def __init__(
        self, side: Compared, blocks: Sequence[str], positions: Sequence[str], known: dict[Hashable, int]
    ) -> None:
        graph = self.graph = side.graph
        self.known = known
        self.stream: dict[str, tuple[int, ...]] = {}
        self.scores: dict[str, tuple[int, ...]] = {}
        self.sums: dict[int, str] = {}
        self.positions = {node: self._code(object()) for node in graph.nodes("position")}
        self.positions |= {node: self._code("position", i) for i, node in enumerate(positions)}
        own = {node: self._code("block", i) for i, node in enumerate(blocks)} | {graph.start: self._code("input")}
        self.own = own
        gives: dict[str, tuple[int, ...]] = {}  # node → codes of the values whose sum it gives
        gives.update((node, (code,)) for node, code in self.positions.items())
        self.gives = gives
        for node in side.order:
            self.stream[node] = _joined(gives[source] for source in graph.sources(node, "stream"))
            self.scores[node] = _joined(
                (own[source],) if source in own else self.scores[source] for source in graph.sources(node, "scores")
            )
            node_type = graph.node_type(node)
            if node in own:
                gives[node] = (own[node],)
            elif node_type in ("context", "condition"):
                gives[node] = (self._code(node_type),)
            elif node_type != "position":
                gives[node] = self._summed(node, gives) if node_type == "sum" else self.stream[node]

    def _code(self, *key: Hashable) -> int:
        return self.known.setdefault(key, len(self.known))

    def _summed(self, node: str, gives: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        bases = self.graph.sources(node, "base")
        if not bases:
            return self.stream[node]
        base = gives[bases[0]]
        ends = sorted(gives[end] for end in self.graph.sources(node, "stream") if gives[end] != base)
        if len(ends) < 2:
            return ends[0] if ends else base
        code = self._code("sum", base, *ends)
        self.sums.setdefault(code, node)
        return (code,)

    def reads(self, node: str) -> dict[str, Any]:
        """By what edges carry, codes of what they bring."""
        brought: dict[str, list[Any]] = {what: [] for what in EDGES}
        for source, edge in self.graph.nx.pred[node].items():
            for what in carried(edge):
                brought.setdefault(what, []).append(self.own.get(source) if what == "normed" else self.gives[source])
        if self.graph.nx.nodes[node].get("join") == "add":
            brought["read"].sort()
        brought["position"].sort()
        return {what: codes for what, codes in brought.items() if codes} | {
            "stream": self.stream[node],
            "scores": self.scores[node],
        }

    def names(self, node: str, carries: str) -> tuple[str, ...]:
        return tuple(self.graph.sources(node, carries))


def _joined(codes: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sorted(code for some in codes for code in some))


def _matched_sums(ours: _Wiring, theirs: _Wiring) -> list[tuple[str, str]]:
    return [(node, theirs.sums[code]) for code, node in ours.sums.items() if code in theirs.sums]


def _wiring_changes(ours: _Wiring, theirs: _Wiring, pair: tuple[str, str]) -> tuple[Change, ...]:
    differ = _changes(ours.reads(pair[0]), theirs.reads(pair[1]))
    return tuple(Change(c.name, ours.names(pair[0], c.name), theirs.names(pair[1], c.name)) for c in differ)


def _shown(graph: Graph, node: str) -> dict[str, Any]:
    """A node's attributes, for JSON."""
    return {name: value for name, value in without_notes(graph.nx.nodes[node]).items() if name != "given"}
