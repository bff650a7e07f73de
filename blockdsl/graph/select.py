"""Nodes of a graph in the language's own words: `dec: a[0:6]`, `f(glu)`, `@core`, `a:even`.

A selector is a list of parts, parted by commas, and selects what any of them does:

    a, f(glu), a(heads=8, kv)   blocks of this kind, with these options
    @core, ^u, <u               what is tied by this label; what it names; the reads of it
    a3, sum0                    the node of this name
    *                           every block and read
    dec: a                      in the stage of this name or number (from 1), or in this stream of two: enc, dec
    a[0], a[-2:], a[::3]        of those found, in order, by Python's rules
    a:even, a:odd               every second of them, from the first or the second
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import Fault, PatternError, Span, did_you_mean, listing, shortened
from ..language.block_options import check_arguments
from ..language.parse import parse_options
from ..language.syntax import Argument, Ref
from ..registry.kinds import kinds
from ..registry.options import by_name, plain
from ..registry.positions import SCHEMES
from .graph import Graph

SIDES = {"encoder": ("encoder", "enc"), "decoder": ("decoder", "dec")}
"""Streams of a graph of two → the words for them."""


@dataclass(frozen=True)
class _Part:
    """One part of a selector; `what` starts with its sign, if it has one."""

    stage: str | None
    what: str
    arguments: tuple[Argument, ...]
    place: slice | int | None
    span: Span


def select(streams: Mapping[str, Graph], selector: str) -> dict[str, list[str]]:
    """The nodes that a selector selects, in graph order, of each stream of a model.

    Args:
        streams: graphs by the names of their streams; of one alone the name does not matter.

    Raises:
        TypeError: the selector is not a text.
        PatternError: it is wrong, or a part of it selects nothing; the error points at the part.
    """
    if not isinstance(selector, str):
        raise TypeError(f"a selector is a string, as 'a:even', not {type(selector).__name__}")
    try:
        parts = [_part(selector, *each) for each in _split(selector)]
        found: dict[str, set[str]] = {name: set() for name in streams}
        for part in parts:
            chosen = {name: _chosen(graph, part, _words_of(name)) for name, graph in streams.items()}
            if not any(chosen.values()):
                raise Fault(part.span, *_nothing(streams, part))
            for name, nodes in chosen.items():
                found[name] |= {*nodes}
    except Fault as fault:
        raise fault.within(selector) from None
    return {name: [node for node in graph.order() if node in found[name]] for name, graph in streams.items()}


def _words_of(stream: str) -> tuple[str, ...]:
    return SIDES.get(stream, (stream,) if stream else ())


# The text --------------------------------------------------------------------------------------------------------


def _split(selector: str) -> Iterator[tuple[int, int]]:
    """Where each part starts and ends; a comma inside brackets parts nothing."""
    depth, start = 0, 0
    for at, char in enumerate(selector):
        depth += (char in "([") - (char in ")]")
        if char == "," and depth == 0:
            yield start, at
            start = at + 1
    yield start, len(selector)


_PART = re.compile(
    r"""\s* (?: (?P<stage>\w+) \s*:\s* (?! (?:even|odd) \s*$ ) )?
    (?P<what> [@^<]?[A-Za-z_]\w* | \*) (?P<options> \( .* \) )?
    \s* (?: \[ (?P<place>[^\]]*) \] )? \s* (?: : \s* (?P<half>even|odd) )? \s* """,
    re.VERBOSE | re.DOTALL,
)
_PLACE = re.compile(r"\s*(-?\d+)?\s*(?:(:)\s*(-?\d+)?\s*(?:(:)\s*(-?\d+)?\s*)?)?")
_FORMS = "as in a, f(glu), @core, ^u, dec: a[0:6] or a:even"


def _part(selector: str, start: int, end: int) -> _Part:
    text = selector[start:end]
    span = Span(start + len(text) - len(text.lstrip()), max(start + 1, start + len(text.rstrip())))
    found = _PART.fullmatch(text)
    if found is None:
        problem = f"'{shortened(text.strip())}' selects no blocks" if text.strip() else "a selector is empty"
        raise Fault(span, problem, _FORMS)
    arguments: tuple[Argument, ...] = ()
    if found["options"]:
        offset = start + found.start("options") + 1
        arguments = _arguments(found["options"][1:-1], offset)
        if found["what"] not in kinds():
            raise Fault(span, f"'{found['what']}' is no kind of block and has no options", _kinds_listed())
        check_arguments(kinds()[found["what"]], Ref(found["what"], arguments, span))
    place: slice | int | None = None
    if found["place"] is not None:
        place = _place(found["place"], Span(start + found.start("place"), start + found.end("place")))
    if found["half"]:
        if place is not None:
            raise Fault(span, "a part says which by [...] and by even or odd", "write one")
        place = slice(("even", "odd").index(found["half"]), None, 2)
    return _Part(found["stage"], found["what"], arguments, place, span)


def _arguments(text: str, offset: int) -> tuple[Argument, ...]:
    if not text.strip():
        return ()
    try:
        arguments = parse_options(text)
    except PatternError as error:
        moved = Span(error.span.start + offset, error.span.end + offset)
        raise Fault(moved, error.problem, error.hint) from None
    return tuple(Argument(a.name, a.value, Span(a.span.start + offset, a.span.end + offset)) for a in arguments)


def _place(text: str, span: Span) -> slice | int:
    found = _PLACE.fullmatch(text)
    if found is None or not text.strip() or (found[5] is not None and int(found[5]) == 0):
        raise Fault(span, f"'{shortened(text)}' is no place", "as in a[0], a[-1], a[2:6] or a[::2]")
    start, first, stop, _, step = found.groups()
    if first is None:
        return int(start)
    return slice(*(None if number is None else int(number) for number in (start, stop, step)))


# What it selects -------------------------------------------------------------------------------------------------


def _chosen(graph: Graph, part: _Part, sides: Sequence[str]) -> list[str]:
    nodes = [node for node in graph.order() if graph.node_type(node) in ("block", "read") or node == part.what]
    if part.stage is not None and part.stage not in sides:
        nodes = [node for node in nodes if part.stage in _stage_of(graph, node)]
    nodes = [node for node in nodes if _is(graph, node, part)]
    if part.place is None:
        return nodes
    if isinstance(part.place, slice):
        return nodes[part.place]
    return nodes[part.place :][:1] if -len(nodes) <= part.place else []


def _stage_of(graph: Graph, node: str) -> tuple[str | None, ...]:
    """The names of a node's stage."""
    stage = graph.nx.nodes[node].get("stage")
    return () if stage is None else (graph.stages[stage], str(stage + 1))


def _is(graph: Graph, node: str, part: _Part) -> bool:
    attrs, sign, name = graph.nx.nodes[node], part.what[0], part.what[1:]
    if part.what == "*":
        return True
    if sign == "@":
        tie = attrs["tie"] or ""
        return name in (tie, tie.partition(".")[0])
    if sign == "^":
        return name in graph.labels(node)
    if sign == "<":
        return attrs["type"] == "read" and any(name in graph.labels(source) for source in graph.sources(node, "read"))
    if part.what not in kinds():
        return node == part.what
    if attrs["type"] != "block" or attrs["kind"] != part.what:
        return False
    known = by_name(kinds()[part.what].all_options())
    return all(_has(graph, node, known, argument) for argument in part.arguments)


def _has(graph: Graph, node: str, known: Mapping[str, object], argument: Argument) -> bool:
    """Whether a block has an option's value; of one that takes a label, whether that is where it reads from."""
    assert argument.name is not None
    if argument.name not in known:  # of the rotary positions that it reads
        positions = [graph.nx.nodes[position] for position in graph.sources(node, "position")]
        rotary = [attrs for attrs in positions if attrs["scheme"] == "rotary"]
        if argument.name == "rotary":
            return bool(rotary) == argument.value
        name = argument.name.removeprefix("rotary_")
        return any(plain(SCHEMES["rotary"].with_defaults(attrs).get(name)) == argument.value for attrs in rotary)
    reads = next(o.reads for o in kinds()[graph.block(node)["kind"]].all_options() if o.name == argument.name)
    if reads:
        return any(argument.value in graph.labels(source) for source in graph.sources(node, reads))
    return bool(plain(graph.block(node)["options"][argument.name]) == argument.value)


def _nothing(streams: Mapping[str, Graph], part: _Part) -> tuple[str, str]:
    """What is said where a part selects nothing: which word is unknown, or that they do not meet."""
    stages = {word for name in streams for word in _words_of(name)}
    graphs = [*streams.values()]
    stages |= {word for graph in graphs for node in graph.nx for word in _stage_of(graph, node) if word is not None}
    if part.stage in kinds() and part.stage not in stages:
        return (
            f"'{shortened(part.what)}' does not say which of a kind's blocks",
            f"as in {part.stage}:even or {part.stage}:odd",
        )
    if part.stage is not None and part.stage not in stages:
        hint = did_you_mean(part.stage, stages) or listing("stages", sorted(stages))
        return f"no stage is called '{shortened(part.stage)}'", hint
    sign, name = part.what[0], part.what[1:]
    attrs = [(graph, node, graph.nx.nodes[node]) for graph in graphs for node in graph.nx]
    if sign == "@":
        ties = {(a.get("tie") or "").partition(".")[0] for _, _, a in attrs} - {""}
        if name not in ties:
            return f"nothing is tied as '{shortened(name)}'", did_you_mean(name, ties) or listing("ties", sorted(ties))
    elif sign in "^<":
        labels = {label for graph, node, _ in attrs for label in graph.labels(node)}
        if name not in labels:
            hint = did_you_mean(name, labels) or listing("labels", sorted(labels))
            return f"there is no label '{shortened(name)}'", hint
    elif part.what != "*" and part.what not in kinds() and part.what not in {node for _, node, _ in attrs}:
        return f"'{shortened(part.what)}' is no kind of block and no node", _kinds_listed()
    return "this selects nothing", f"the graph has {' and '.join(str(len(g.nodes('block'))) for g in graphs)} blocks"


def _kinds_listed() -> str:
    return f"kinds: {', '.join(sorted(kinds()))}; {_FORMS}"
