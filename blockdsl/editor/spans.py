"""Where each block of a graph stands in its text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Span
from ..language.expand import BlockSpec, ParallelSpec, Spec
from ..language.labels import LabelSpec
from ..language.pattern import Pattern, parse

if TYPE_CHECKING:
    from ..api import BlockGraph


def spans(of: BlockGraph | Pattern | str) -> dict[str, list[Span]]:
    """Node of the graph, as drawings name it → the places in the text that it comes from.

    The first place is the block itself or, of a macro's, the call. Of a block in a definition, where that is used comes
    after it, and where a definition around that one is used after that. Of two streams, nodes are named `encoder.a0`
    and `decoder.a0`. A sum of parallel branches is where its branches are. Of a graph the text is its `pattern`: that
    of an edited one is the text that it has now.

    Raises:
        PatternError: the text is at fault, or the graph was edited into one that has none.
    """
    if isinstance(of, str | Pattern):
        return nodes_of(parse(of) if isinstance(of, str) else of)
    pattern = parse(of.pattern)
    found = nodes_of(pattern)
    from ..api import compile  # with networkx, which the rest does without
    from ..graph.written import is_edited

    if not is_edited(of.nx):
        return found
    written = compile(pattern)  # its nodes are called as the text would call them
    diff = written.diff(of)
    halves = {"": diff} if diff.encoder is None else {"encoder.": diff.encoder, "decoder.": diff}
    called = {f"{side}{old}": f"{side}{new}" for side, own in halves.items() for old, new in own.pairs}
    return {called[node]: places for node, places in found.items()}


def nodes_of(pattern: Pattern) -> dict[str, list[Span]]:
    """The same of a pattern that is parsed."""
    if pattern.encoder is None:
        return _Namer().named(pattern.expansion.specs)
    sides = {"encoder": pattern.encoder, "decoder": pattern}
    return {
        f"{side}.{node}": found
        for side, stream in sides.items()
        for node, found in _Namer().named(stream.expansion.specs).items()
    }


class _Namer:
    """Counts blocks, reads and sums in the order in which `graph.compile` makes their nodes."""

    def __init__(self) -> None:
        self.blocks = self.reads = self.sums = 0
        self.found: dict[str, list[Span]] = {}

    def named(self, specs: tuple[Spec, ...]) -> dict[str, list[Span]]:
        for spec in specs:
            self._name(spec)
        return self.found

    def _name(self, spec: Spec, depth: int = 0) -> Span:
        """Note where it comes from; returns where that is written in the text of the definition `depth` uses down."""
        if isinstance(spec, LabelSpec):
            return spec.span
        if isinstance(spec, ParallelSpec):
            inside = [self._name(each, len(spec.uses)) for branch in spec.branches for each in branch]
            name, written = f"sum{self.sums}", Span(min(inside)[0], max(span.end for span in inside))
            self.sums += 1
        elif isinstance(spec, BlockSpec):
            name, written = f"{spec.kind}{self.blocks}", spec.span
            self.blocks += 1
        else:
            name, written = f"read{self.reads}", spec.span
            self.reads += 1
        self.found[name] = [written, *reversed(spec.uses)]
        return (*spec.uses, written)[depth]
