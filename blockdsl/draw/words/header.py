"""What a drawing says of the whole stack, above it: its size, its norm, and settings that no block says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ...graph import costs
from ...measurement import billions
from ...registry.content import by_content
from ...registry.kinds import Kind, kind_of
from ...registry.norms import norms_of
from . import ends
from .captions import Captions
from .operations import steps
from .said import as_set, told_of, unsaid

if TYPE_CHECKING:
    from ...graph.costs import Cost
    from ...graph.graph import Graph


class Head(NamedTuple):
    """What is said of a stack, or of a model of two.

    Attributes:
        sizes: `dim 512`, `8 heads of 64`.
        facts: `causal`, `pre-norm RMSNorm`, `eps 1e-6`.
        blocks: `24 blocks`, `2 stages`.
        cost: of all of it.
        shared: how many of its parameters both streams have.
        settings: what neither it nor the blocks say otherwise, in words → as a pattern sets it.
    """

    sizes: list[str]
    facts: list[str]
    blocks: list[str]
    cost: Cost
    shared: int
    settings: dict[str, str]

    def title(self) -> list[str]:
        """All but the settings, with exact numbers."""
        shared = [f"{self.shared:,} shared"] if self.shared else []
        return [*self.sizes, *self.facts, *self.blocks, ", ".join([costs.parameters_in_words(self.cost), *shared])]

    def above(self) -> list[str]:
        """What is above a picture, whose boxes say the sizes: `8.03 B parameters`, `causal`, `pre-norm RMSNorm`."""
        every, active = self.cost.parameters, self.cost.active
        size = f"{billions(every)} parameters" + ("" if active == every else f", {billions(active)} active")
        return [size + (f", {billions(self.shared)} shared" if self.shared else ""), *self.facts]

    def lines(self) -> list[list[str]]:
        """What is above a drawing without boxes."""
        return [line for line in (self.title(), [*self.settings]) if line]


def head_of(captions: Captions, cost: Cost | None = None) -> Head:
    """That of one stack. `cost`: of all of it, where it is known."""
    graph = captions.graph
    cost = costs.total(graph, costs.sizes(1, 1)) if cost is None else cost
    sizes = [*filter(None, (f"dim {graph.dim:,}", ends.heads(graph)))]
    facts = ["causal"] * graph.causal + _norms(graph)
    blocks = _blocks(len(graph.nodes("block"))) + ([f"{len(graph.stages)} stages"] if len(graph.stages) > 1 else [])
    return Head(sizes, [*filter(None, facts)], blocks, cost, 0, stack_settings(captions))


def heads_of(model: Graph, streams: Mapping[str, Head]) -> tuple[Head, dict[str, Head]]:
    """That of a model of two streams, with what both have; and of each with what is its own."""
    one, other = streams.values()
    cost = costs.total(model, costs.sizes(1, 1))
    both = [[said for said in mine if said in theirs] for mine, theirs in zip(one[:2], other[:2], strict=True)]
    settings = {said: text for said, text in one.settings.items() if said in other.settings}
    shared = one.cost.parameters + other.cost.parameters - cost.parameters
    count = sum(len(stream.nodes("block")) for stream in (model, model.encoder) if stream is not None)
    return Head(both[0], both[1], _blocks(count), cost, shared, settings), {
        name: own._replace(
            sizes=[said for said in own.sizes if said not in both[0]],
            facts=[said for said in own.facts if said not in both[1]],
            settings={said: text for said, text in own.settings.items() if said not in settings},
        )
        for name, own in streams.items()
    }


def _blocks(count: int) -> list[str]:
    return [f"{count:,} block{'' if count == 1 else 's'}"]


def _norms(graph: Graph) -> list[str]:
    """The norm of most blocks, and of the kinds most of whose blocks have another one: `no norm of 'f'`."""
    return graph.once("norms", lambda: [*_norms_of_kinds(graph)])


def _norms_of_kinds(graph: Graph) -> Iterator[str]:
    of: dict[str, Counter[str]] = {}
    for attrs, times in graph.distinct():
        of.setdefault(attrs["kind"], Counter())[_norm_words(kind_of(attrs["kind"]), attrs["options"])] += times
    ((usual, _),) = sum(of.values(), Counter[str]()).most_common(1) or [("", 0)]
    own = {kind: counts.most_common(1)[0][0] for kind, counts in of.items()}
    yield from usual.split(", ")
    for kind, words in own.items():
        if words not in ("", usual):
            norm, comma, eps = words.partition(", ")
            yield f"{norm} of {kind!r}{comma}{eps}"


def norm_words(options: Mapping[str, Any]) -> str:
    """`pre-norm RMSNorm`: the norm of a block, and where it stands; of one that shares another's, nothing."""
    of_stream, of_output, of_sum = norms_of(options)
    norm = of_stream or of_output or of_sum
    if norm is None:
        return "" if options["shared_norm"] else "no norm"
    words = norm.in_words()
    eps = norm.in_words(eps=True).removeprefix(words)
    if not options["pre_norm"]:
        return f"post-norm {words}{eps}"
    if of_output is not None:
        return f"{words} {'before and ' if of_stream is not None else ''}after each branch{eps}"
    return f"{'pre- and post' if of_sum is not None else 'pre'}-norm {words}{eps}"


@by_content
def _norm_words(kind: Kind, options: Mapping[str, Any]) -> str:
    return norm_words(options)


def stack_settings(captions: Captions) -> dict[str, str]:
    """What the stack sets and neither its blocks nor facts say, in words → as a pattern sets it."""
    found: dict[str, str] = {}
    for name, usual in captions.usual.items():
        kind = kind_of(name)
        options = {option.name: option.default for option in kind.all_options()} | usual
        for option in unsaid(kind, captions.graph.dim, options, 1, block_words):
            value = options[option.name]
            found[told_of(kind, option, value)] = as_set(option.setting or option.name, value)
    return found | dict(_of_sources(captions))


def _of_sources(captions: Captions) -> Iterator[tuple[str, str]]:
    """The same of positions and of the condition, whose nodes have their titles alone."""
    graph = captions.graph
    for node in (*graph.nodes("position"), *graph.nodes("condition")):
        title = captions.position(node) if graph.node_type(node) == "position" else node
        if said := ends.of_source(graph, node):
            yield f"{title}: {', '.join(said)}", f"{node}: {', '.join(said.values())}"


def block_words(kind: Kind, o: Any) -> Any:
    """What a closed block and its surroundings tell of its options."""
    options = vars(o)
    norms = [norm and norm.in_words(eps=True) for norm in norms_of(options)]
    summary = () if kind.summary is None else tuple(kind.summary(o))
    return summary, norm_words(options), norms, *_marks(options)


def opened_words(kind: Kind, o: Any) -> Any:
    """The same of an open one, where operations do."""
    norms = [norm and norm.in_words(eps=True) for norm in norms_of(vars(o))]
    return steps(kind, o), norm_words(vars(o)), norms, *_marks(vars(o))


def _marks(options: Mapping[str, Any]) -> tuple[Any, ...]:
    """What the sign on the rail and the input say."""
    names = ("gate_residual", "num_residual_streams", "reinject_input", "causal", "branch_scale")
    return *(options.get(name) for name in names), options["scale_residual_constant"] == 0
