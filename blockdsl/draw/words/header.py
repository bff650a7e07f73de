"""What a drawing says of the whole stack, above it: its size, its norm, and settings that no block says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...graph import costs
from ...measurement import short
from ...registry.content import by_content
from ...registry.kinds import Kind, kind_of
from ...registry.norms import norms_of
from . import ends
from .captions import Captions
from .operations import steps
from .said import unsaid

if TYPE_CHECKING:
    from ...graph.costs import Cost
    from ...graph.graph import Graph


def title(graph: Graph, cost: Cost) -> list[str]:
    """`dim 512`, `8 heads of 64`, `causal`, `pre-norm RMSNorm`, ... `cost`: of all of it."""
    count = len(graph.nodes("block"))
    said = [f"dim {graph.dim}", ends.heads(graph), "causal" if graph.causal else "", *_norms(graph)]
    said += [f"{count:,} block{'' if count == 1 else 's'}"]
    said += [f"{len(graph.stages)} stages" if len(graph.stages) > 1 else "", costs.parameters_in_words(cost)]
    return list(filter(None, said))


def head(captions: Captions) -> tuple[list[str], list[str]]:
    """What stands above a drawing without pictures: its title, and the settings that nothing in it says."""
    graph = captions.graph
    return title(graph, costs.total(graph, costs.sizes(1, 1))), stack_settings(captions)


def stack_facts(graph: Graph, cost: Cost) -> list[str]:
    """`8.03 B parameters`, `causal`, `pre-norm RMSNorm`: what no block says. `cost`: of all of it."""
    return list(filter(None, [_size(cost), "causal" if graph.causal else "", *_norms(graph)]))


def _norms(graph: Graph) -> list[str]:
    """The norm of most blocks, and of the kinds most of whose blocks have another one: `no norm of 'f'`."""
    return graph.once("norms", lambda: [*_norms_of_kinds(graph)])


def _norms_of_kinds(graph: Graph) -> Iterator[str]:
    of: dict[str, Counter[str]] = {}
    for node in graph.nodes("block"):
        attrs = graph.block(node)
        of.setdefault(attrs["kind"], Counter())[_norm_words(kind_of(attrs["kind"]), attrs["options"])] += 1
    ((usual, _),) = sum(of.values(), Counter[str]()).most_common(1) or [("", 0)]
    own = {kind: counts.most_common(1)[0][0] for kind, counts in of.items()}
    yield from usual.split(", ")
    yield from (f"{words} of {kind!r}" for kind, words in own.items() if words not in ("", usual))


def _size(cost: Cost) -> str:
    """`46.7 B parameters, 12.9 B active`."""
    every, active = cost.parameters, cost.active
    return f"{_billions(every)} parameters" + ("" if active == every else f", {_billions(active)} active")


def _billions(count: int) -> str:
    return short(count).replace("G", "B")


def norm_words(options: Mapping[str, Any]) -> str:
    """`pre-norm RMSNorm`: the norm of a block, and where it stands; of one that shares another's, nothing."""
    of_stream, of_output, of_sum = norms_of(options)
    norm = of_stream or of_output or of_sum
    if norm is None:
        return "" if options["shared_norm"] else "no norm"
    words = norm.in_words(eps=True)
    if not options["pre_norm"]:
        return f"post-norm {words}"
    if of_output is not None:
        return f"{words} {'before and ' if of_stream is not None else ''}after each branch"
    return f"{'pre- and post' if of_sum is not None else 'pre'}-norm {words}"


@by_content
def _norm_words(kind: Kind, options: Mapping[str, Any]) -> str:
    return norm_words(options)


def stack_settings(captions: Captions) -> list[str]:
    """What the stack sets off its default and neither its blocks nor `stack_facts` say, as a pattern sets it."""
    found: dict[str, None] = {}
    for name, usual in captions.usual.items():
        kind = kind_of(name)
        defaults = {option.name: option.default for option in kind.all_options()}
        keywords = {option.name: option.setting or option.name for option in kind.all_options()}
        for spelled in unsaid(kind, captions.graph.dim, {**defaults, **usual}, 1, block_words):
            option, equals, value = spelled.partition("=")
            found[keywords[option] + equals + value] = None
    return [*found, *_of_sources(captions)]


def _of_sources(captions: Captions) -> Iterator[str]:
    """What is set of positions and of the condition, whose nodes have their titles alone."""
    graph = captions.graph
    for node in (*graph.nodes("position"), *graph.nodes("condition")):
        title = captions.position(node) if graph.node_type(node) == "position" else node
        if said := ends.of_source(graph, node):
            yield f"{title}: {', '.join(said)}"


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
