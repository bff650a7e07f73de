"""A graph that plain networkx calls have damaged: whatever is asked of it works, or fails in words."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import networkx as nx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import blockdsl
import xt_blocks
from blockdsl import BlockGraph, GraphError, UserError
from blockdsl.graph import lint
from blockdsl.graph.nodes import EDGES

PATTERNS = (
    ("(a f)*3", {}),
    ("a & f | (a f)*2", {"causal": True, "rotary_pos_emb": True}),
    ("^u a f <u(gain) a ^v f <v", {"num_tokens": 8, "max_seq_len": 6}),
    ("a ^k f a(kv=k) f c", {"residual_attn": True, "use_adaptive_rmsnorm": True, "dim_condition": 3}),
    ("(a@x f@y)*2 | s: (a & f & f f)", {"image_size": 4, "patch_size": 2, "num_classes": 3}),
    ("a f => (a c f)*2", {"shared_norm": False}),
)
ODD = (None, True, 0, -1, 3, 0.5, float("nan"), 10**20, "x", "", (), [1], {"a": 1}, ("stream", 1), object())


def _calls(g: BlockGraph) -> dict[str, Callable[[], Any]]:
    """Everything that a graph can be asked, by its name."""
    other = blockdsl.compile("a f", dim=16, heads=2)
    return {
        "lint": g.lint,
        "repr": lambda: repr(g),
        "str": lambda: str(g),
        "pattern": lambda: g.pattern,
        "parameters": g.parameters,
        "active": lambda: g.parameters(active=True),
        "flops": lambda: g.flops(4),
        "cache": lambda: g.kv_cache_bytes(4),
        "plan": lambda: g.plan("dp=1", seq_len=4, batch=2),
        "digest": g.digest,
        "equal": lambda: g == other,
        "select": lambda: g.select("f"),
        "diff": lambda: str(g.diff(other)),
        "diff of another": lambda: other.diff(g).to_svg(),
        "to_pattern": g.to_pattern,
        "to_text": g.to_text,
        "to_dot": g.to_dot,
        "to_mermaid": g.to_mermaid,
        "to_svg": g.to_svg,
        "to_svg of operations": lambda: g.to_svg(detail="op", color="params"),
        "to_html": g.to_html,
        "to_json": g.to_json,
        "from_json": lambda: BlockGraph.from_json(g.to_json()),
        "with_tokens": lambda: g.with_tokens(8, 4),
        "with_images": lambda: g.with_images(4, 2),
        "with_encoder": lambda: g.with_encoder(other),
        "with_loops": lambda: g.with_loops(x=2),
        "with_mup": lambda: g.with_mup(other),
        "stack_alone": g.stack_alone,
        "model_options": g.model_options,
        "insert": lambda: g.copy().insert("f1", "f(glu)"),
        "remove": lambda: g.copy().remove("f1"),
        "replace": lambda: g.copy().replace("a0", "a"),
        "order": g.order,
        "streams": g.streams,
        "unused": g.unused,
        "why_not_cached": g.why_not_cached,
        "lower": lambda: xt_blocks.lower(g),
        "record": lambda: _recorded(g),
    }


def _recorded(g: BlockGraph) -> object:
    model = xt_blocks.lower(g)
    if isinstance(model, xt_blocks.Stack) and not model.reads_context and not model.reads.condition:
        return xt_blocks.record(model, torch.randn(1, 3, g.dim))
    return None


@st.composite
def damages(draw: st.DrawFn) -> tuple[BlockGraph, list[str]]:
    """A graph and what was done to it."""
    pattern, said = draw(st.sampled_from(PATTERNS))
    g = blockdsl.compile(pattern, **({"dim": 16, "heads": 2, "attn_dim_head": 4} | said))
    done = []
    for _ in range(draw(st.integers(1, 4))):
        done.append(draw(st.sampled_from([*EDITS])))
        EDITS[done[-1]](g.nx, lambda of: draw(st.sampled_from([*of])) if [*of] else None)
    return g, done


def _set(graph: nx.DiGraph, pick: Callable[[Any], Any]) -> None:
    attrs = graph.nodes[node] if (node := pick(graph)) is not None else graph.graph
    name = pick([name for name in [*attrs, "typo"] if name != "encoder"])
    attrs[name] = pick(ODD)


def _option(graph: nx.DiGraph, pick: Callable[[Any], Any]) -> None:
    node = pick([node for node, attrs in graph.nodes(data=True) if isinstance(attrs.get("options"), dict)])
    if node is not None:
        options = graph.nodes[node]["options"]
        name = pick([*options, "typo"])
        options[name] = pick(ODD)
        if pick((True, False)):
            del options[name]


def _forget(graph: nx.DiGraph, pick: Callable[[Any], Any]) -> None:
    node = pick(graph)
    attrs = graph.graph if node is None else graph.nodes[node]
    attrs.pop(pick(attrs), None)


def _contract(graph: nx.DiGraph, pick: Callable[[Any], Any]) -> None:
    one, other = pick(graph), pick(graph)
    if one != other:
        nx.contracted_nodes(graph, one, other, self_loops=False, copy=False)


EDITS: dict[str, Callable[[nx.DiGraph, Callable[[Any], Any]], None]] = {
    "remove a node": lambda graph, pick: graph.remove_nodes_from([pick(graph)]),
    "remove an edge": lambda graph, pick: graph.remove_edges_from([pick(graph.edges) or ("", "")]),
    "add an edge": lambda graph, pick: graph.add_edge(pick(graph) or "x", pick(graph) or "y"),
    "carry something": lambda graph, pick: graph.add_edge(
        pick(graph) or "x", pick(graph) or "y", carries=pick((*EDGES, "kv", *[odd for odd in ODD if odd is not None]))
    ),
    "add a bare node": lambda graph, pick: graph.add_edge(pick(graph) or "x", "new"),
    "copy a node": lambda graph, pick: graph.add_node("again", **graph.nodes.get(pick(graph), {})),
    "contract nodes": _contract,
    "set an attribute": _set,
    "set an option": _option,
    "forget an attribute": _forget,
    "forget one of the graph": lambda graph, pick: graph.graph.pop(pick(graph.graph), None) and None,
    "reverse an edge": lambda graph, pick: (
        graph.add_edge(*(edge := pick(graph.edges) or ("x", "y"))[::-1]),
        graph.remove_edges_from([edge]),
    )[1],
}


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])
@given(damages())
def test_whatever_is_asked_of_a_damaged_graph_works_or_fails_in_words(damaged: tuple[BlockGraph, list[str]]) -> None:
    g, _ = damaged
    for call in _calls(g).values():
        with suppress(UserError):  # any other error is the failure
            call()
    assert bool(lint.faults(g)) == _refused(g)


def _refused(g: BlockGraph) -> bool:
    try:
        g.lint()
    except GraphError:
        return True
    return False


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda graph: graph.graph.pop("dim"), "the graph: has no attribute dim"),
        (lambda graph: graph.remove_node("input"), "the graph has 0 input nodes and needs one"),
        (lambda graph: graph.nodes["a0"].pop("options"), "a0: has no attribute options"),
        (lambda graph: graph.nodes["a0"]["options"].update(heads=0), "a0: heads must be a whole number"),
        (lambda graph: graph.add_edge("f1", "new"), "new: unknown node type None"),
    ],
)
@pytest.mark.parametrize("ask", ["parameters", "to_svg", "to_text", "to_html", "to_dot", "to_mermaid", "digest"])
def test_figures_and_pictures_of_a_damaged_graph_say_what_is_wrong_with_it(
    damage: Callable[[nx.DiGraph], object], says: str, ask: str
) -> None:
    g = blockdsl.compile("a f", dim=16, heads=2)
    damage(g.nx)
    with pytest.raises(GraphError) as error:
        getattr(g, ask)()
    assert says in str(error.value)


def test_a_circle_is_named_wherever_the_order_matters() -> None:
    g = blockdsl.compile("a f", dim=16, heads=2)
    g.nx.add_edge("f1", "a0")
    for ask in (g.parameters, g.to_svg, g.to_text, g.order, g.to_pattern, g.plan):
        with pytest.raises(GraphError, match="a0: is part of a cycle: a0 → f1 → a0"):
            ask(**({"seq_len": 4, "batch": 2, "mesh": "dp=1"} if ask == g.plan else {}))


def test_an_error_that_is_no_fault_of_the_graph_stays_what_it_is() -> None:
    g = blockdsl.compile("a f", dim=16, heads=2)
    with pytest.raises(TypeError, match="seq_len"):
        g.flops()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unknown argument 'gpu'"):
        g.plan(gpu=2, seq_len=4, batch=2)
