"""A graph as JSON: all of it, in order, and nothing that is not such a graph gets in."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import blockdsl
import xt_blocks
from blockdsl import BlockGraph, GraphError

from .patterns import PLAIN_ATTENTION, PLAIN_BLOCK, PLAIN_FEEDFORWARD, PLAIN_INPUT, PLAIN_OUTPUT, Model, models

SIZES = {"dim": 12, "heads": 2, "attn_dim_head": 4}


def graph(pattern: str, **keywords: Any) -> BlockGraph:
    return blockdsl.compile(pattern, **(SIZES | keywords))


def test_a_graph_without_attributes_of_today_says_which() -> None:
    value = json.loads(graph("a f", num_tokens=9, max_seq_len=5).to_json())
    for node in value["nodes"]:
        if node["type"] == "input":
            del node["emb_dim"], node["post_emb_norm"]
        elif node["type"] == "output":
            node["vocabulary"] = node.pop("logits_dim")
    with pytest.raises(GraphError) as caught:
        BlockGraph.from_json(json.dumps(value))
    assert str(caught.value) == (
        "the graph cannot be lowered: 3 faults\n  input: has no attribute emb_dim, post_emb_norm\n"
        "    g.nx.nodes['input'].update(emb_dim=None, post_emb_norm=False)\n"
        "  output: has no attribute logits_dim\n    g.nx.nodes['output'].update(logits_dim=None)\n"
        "  output: unknown attribute 'vocabulary'; to keep a note of your own, call it '_vocabulary'\n"
        "  an older version may have written it: compile its pattern again"
    )


def test_a_small_graph_written_out() -> None:
    g = graph("s: c/2 | f@x", num_tokens=9, max_seq_len=5, use_abs_pos_emb=False, causal=True)
    assert json.loads(g.to_json()) == {
        "graph": {"dim": 12, "causal": True, "stages": ["s", None], "pattern": "s: c/2 | f@x"},
        "nodes": [
            {"id": "input"} | PLAIN_INPUT | {"num_tokens": 9, "max_seq_len": 5},
            {
                "id": "c0",
                "type": "block",
                "kind": "c",
                "options": PLAIN_ATTENTION
                | {"heads": 2, "dim_head": 4, "tokens_dropout": 0.0, "dim_context": None}
                | {"rotary": False, "context": False, "values": False}
                | PLAIN_BLOCK,
                "given": {},
                "shift": 0,
                "scale": 0.5,
                "tie": None,
                "stage": 0,
            },
            {"id": "context", "type": "context"},
            {
                "id": "f1",
                "type": "block",
                "kind": "f",
                "options": PLAIN_FEEDFORWARD | PLAIN_BLOCK,
                "given": {},
                "shift": 0,
                "scale": 1.0,
                "tie": "x",
                "stage": 1,
            },
            {"id": "output"} | PLAIN_OUTPUT | {"logits_dim": 9},
        ],
        "edges": [
            {"from": "input", "to": "c0", "carries": ["stream"]},
            {"from": "context", "to": "c0", "carries": ["context"]},
            {"from": "c0", "to": "f1", "carries": ["stream"]},
            {"from": "f1", "to": "output", "carries": ["stream"]},
        ],
    }


def test_what_edges_carry_and_the_order_of_everything_are_kept() -> None:
    g = graph("a & (f a) | a a", residual_attn=True, rotary_pos_emb=True)
    back = BlockGraph.from_json(g.to_json())
    assert [*back.nx] == [*g.nx]
    assert [*back.nx.edges(data="carries")] == [*g.nx.edges(data="carries")]
    assert back.nx.edges["a3", "a4"]["carries"] == ("stream", "scores")
    assert [[*attrs] for _, attrs in back.nx.nodes(data=True)] == [[*attrs] for _, attrs in g.nx.nodes(data=True)]
    assert [*back.nx.nodes["a0"]["options"]] == [*g.nx.nodes["a0"]["options"]]
    assert back.tied() == g.tied()
    assert back.sources("sum0", "stream") == g.sources("sum0", "stream")


def test_a_height_and_a_width_come_back_as_such() -> None:
    g = graph("a f", image_size=(32, 16), patch_size=(8, 4), num_classes=3)
    back = BlockGraph.from_json(g.to_json())
    assert back.nx.nodes["input"] == g.nx.nodes["input"]
    assert not g.diff(back)
    assert back.model_options() == g.model_options()


def test_notes_are_left_out() -> None:
    g = graph("a f")
    g.nx.nodes["a0"]["_weights"] = g.nx.graph["_seen"] = object()  # which JSON could not say
    assert g.to_json() == graph("a f").to_json()
    assert g.copy().nx.nodes["a0"].keys() == g.nx.nodes["a0"].keys()


def test_the_text_of_an_edited_graph_is_the_edited_graph() -> None:
    g = graph("(a f)*2")
    g.nx.remove_node("f1")
    g.nx.add_edge("a0", "a2")
    g.nx.add_edge("input", "f3", carries="stream")
    g.nx.nodes["f3"]["options"]["glu"] = True
    back = BlockGraph.from_json(g.to_json())
    assert back == g
    assert back.nodes("block") == ["a0", "a2", "f3"]
    # the order of reading is the order of the sum, and of branches in a drawing
    assert back.sources("f3", "stream") == g.sources("f3", "stream") == ["a2", "input"]
    assert back.nx.nodes["f3"]["options"]["glu"] is True
    assert back.parameters() == g.parameters()


def test_equal_graphs_have_equal_texts_and_a_changed_one_has_not() -> None:
    g = graph("(a f)*2")
    assert g == graph("(a f)*2")
    assert g != "a f"
    for change in (
        lambda other: other.nx.nodes["f1"].update(scale=0.5),
        lambda other: other.nx.nodes["f1"]["options"].update(mult=3),
        lambda other: other.nx.add_edge("a0", "f3"),
        lambda other: other.nx.graph.update(causal=True),
    ):
        other = g.copy()
        change(other)
        assert other != g


def plain(value: Any) -> bool:
    """Made of what JSON has and nothing else."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(plain, value))
    return value is None or isinstance(value, str | int | float | bool)


@settings(max_examples=60)
@given(models())
def test_a_random_graph_comes_back_equal(model: Model) -> None:
    g = blockdsl.compile(model.text, **model.settings)
    text = g.to_json()
    back = BlockGraph.from_json(text)
    assert back == g
    assert back.to_json() == text
    assert [*back.nx.nodes(data=True)] == [*g.nx.nodes(data=True)]
    assert [*back.nx.edges(data=True)] == [*g.nx.edges(data=True)]
    assert back.nx.graph == g.nx.graph
    # strict: no NaN or Infinity, which other readers refuse
    assert plain(json.loads(text, parse_constant=lambda name: pytest.fail(name)))


@settings(max_examples=20)
@given(models())
def test_a_graph_from_json_lowers_to_the_same_module(model: Model) -> None:
    g = blockdsl.compile(model.text, **model.settings)
    back = BlockGraph.from_json(g.to_json())
    with torch.device("meta"):
        want, got = xt_blocks.lower(g).state_dict(), xt_blocks.lower(back).state_dict()
    assert [(name, value.shape) for name, value in got.items()] == [(name, v.shape) for name, v in want.items()]
    assert got


def test_a_module_from_json_gives_the_same_numbers() -> None:
    g = graph("a & f | (a@x f@y>>1/2)*2", rotary_pos_emb=True, residual_attn=True, causal=True)
    want = xt_blocks.lower(g).eval()
    got = xt_blocks.lower(BlockGraph.from_json(g.to_json())).eval()
    got.load_state_dict(want.state_dict())
    x = torch.randn(2, 5, 12)
    assert torch.equal(got(x), want(x))


EMPTY = '{"graph": {"dim": 1, "causal": true, "stages": [null], "pattern": ""}, "nodes": %s, "edges": %s}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a f",
        "[]",
        "{}",
        "null",
        "3",
        '"x"',
        "[" * 100_000,
        '{"graph": 3, "nodes": [], "edges": []}',
        '{"graph": {"incoming_graph_data": 3}, "nodes": [], "edges": []}',
        EMPTY % ("[3]", "[]"),
        EMPTY % ('[{"type": "input"}]', "[]"),
        EMPTY % ('[{"id": null, "type": "input"}]', "[]"),
        EMPTY % ('[{"id": [1], "type": "input"}]', "[]"),
        EMPTY % ('[{"id": "a0", "type": "block", "options": [1]}]', "[]"),
        EMPTY % ("[]", "[[]]"),
        EMPTY % ("[]", '[{"from": "a"}]'),
        EMPTY % ("[]", '[{"from": "a", "to": "b", "carries": 3}]'),
        EMPTY % ("{}", "{}"),
        EMPTY % ("9" * 5000, "[]"),
    ],
)
def test_what_is_no_graph_is_refused(text: str) -> None:
    with pytest.raises(GraphError):
        BlockGraph.from_json(text)


def test_the_refusal_says_what_was_expected_or_what_is_at_fault() -> None:
    with pytest.raises(GraphError) as error:
        BlockGraph.from_json('{"graph": {}')
    assert str(error.value).startswith("this is not a block graph in JSON: Expecting")
    with pytest.raises(GraphError) as error:
        BlockGraph.from_json("{}")
    assert str(error.value) == "this is not a block graph in JSON: the text has no 'graph'"
    with pytest.raises(GraphError) as error:
        BlockGraph.from_json(graph("a f").to_json().replace('"heads": 2', '"heads": 0'))
    assert str(error.value) == (
        "the graph cannot be lowered:\n  a0: heads must be a whole number of at least 1, not 0\n"
        "    g.nx.nodes['a0']['options']['heads'] = 8"
    )


def damaged(change: Callable[[dict[str, Any]], Any]) -> str:
    value = json.loads(graph("a@x f a@x", rotary_pos_emb=True).to_json())
    change(value)
    return json.dumps(value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda v: v["nodes"].append(v["nodes"][1]), "two nodes have the id 'a0'"),
        (
            lambda v: v["edges"].append(v["edges"][0]),
            "two edges go from 'input' to 'a0'; one carries all that they carry",
        ),
        (lambda v: v["edges"][0].update({"to": "b"}), "an edge goes from 'input' to 'b', and 'b' is no node"),
        (lambda v: v["edges"][0].update({"to": ["a0"]}), "an edge goes from 'input' to ['a0'], and ['a0'] is no node"),
        (lambda v: v["edges"][0].update(weight=1), "an edge has 'weight', and an edge has from, to and carries alone"),
        (lambda v: v["edges"][0].update(carries={"stream": 1}), "what an edge carries must be a list, not an object"),
        (lambda v: v["edges"][0].update(carries="stream"), "what an edge carries must be a list, not a text"),
        (lambda v: v["edges"][0].pop("carries"), "an edge has no 'carries'"),
        (lambda v: v["edges"].append(["a0", "f1"]), "an edge must be an object, not a list"),
        (lambda v: v["nodes"][1].pop("id"), "a node has no 'id'"),
        (lambda v: v["nodes"][1].update(id=3), "the id of a node must be a text, not 3"),
        (lambda v: v["nodes"].append(3.5), "a node must be an object, not a number"),
        (lambda v: v.update(nodes={}), "nodes must be a list, not an object"),
        (lambda v: v.update(graph=None), "graph must be an object, not null"),
        (lambda v: v.pop("edges"), "the text has no 'edges'"),
        (
            lambda v: v.update(version=9),
            "it has 'version', and this version of blockdsl knows graph, nodes and edges alone",
        ),
    ],
)
def test_what_is_damaged_is_named_in_the_words_of_json(change: Callable[[dict[str, Any]], Any], problem: str) -> None:
    with pytest.raises(GraphError) as caught:
        BlockGraph.from_json(damaged(change))
    assert str(caught.value) == f"this is not a block graph in JSON: {problem}"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda v: v["nodes"][1].update(options=[1]), "a0: options must be a dict, not (1,)"),
        (lambda v: v["nodes"][1].update(given="x"), "a0: given must be a dict, not 'x'"),
        (lambda v: v["nodes"][1].update(type=["block"]), "a0: unknown node type ('block',)"),
        (lambda v: v["nodes"][1].update(kind=["a"]), "a0: kind must be a name, not (a)"),
        (lambda v: v["nodes"][1].update(scale=float("nan")), "a0: scale must be a number, not nan"),
        (lambda v: v["nodes"][1].update(scale=float("inf")), "a0: scale must be below 1e18"),
        (lambda v: v["nodes"][1].update(stage=0.5), "a0: stage must be a whole number of at least 0, not 0.5"),
        (lambda v: v["graph"].update(dim=10**40), "the graph: dim must be below 1e18"),
        (lambda v: v["graph"].update(dim="12"), "the graph: dim must be a whole number of at least 1, not '12'"),
        (lambda v: v["graph"].update(causal=1), "the graph: causal must be true or false, not 1"),
        (
            lambda v: v["edges"][0].update(carries=[["stream"]]),
            "input → a0: carries must be a tuple of names, not (['stream'],)",
        ),
    ],
)
def test_wrong_values_are_named_by_their_node(change: Callable[[dict[str, Any]], Any], fault: str) -> None:
    with pytest.raises(GraphError) as caught:
        BlockGraph.from_json(damaged(change))
    assert fault in str(caught.value)


def test_texts_that_are_odd_but_whole_are_read() -> None:
    g = graph("a f")
    assert BlockGraph.from_json("\ufeff" + g.to_json()) == g
    assert BlockGraph.from_json(g.to_json().encode()) == g
    with pytest.raises(GraphError, match=r"JSON: an object has 'dim' twice"):
        BlockGraph.from_json(g.to_json().replace('"dim": 12', '"dim": 12, "dim": 16'))
    for wrong in (None, json.loads(g.to_json()), g.nx):
        with pytest.raises(TypeError, match=r"from_json reads a text, as to_json writes it, not"):
            BlockGraph.from_json(wrong)  # type: ignore[arg-type]


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 40), st.floats(-2, 2), st.sampled_from(["", "a", "a0", "sum", "stream"])
)
JUNK = st.recursive(
    JUNK, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("a"), inner), max_leaves=3
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value: what holds it, and its key there."""
    if not isinstance(value, dict | list):
        return []
    keys = [*value] if isinstance(value, dict) else [*range(len(value))]
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


@settings(max_examples=400)
@given(
    st.sampled_from(["a f", "a c & (f a)", "(a@x f)*2"]),
    st.booleans(),
    st.data(),
)
def test_a_damaged_graph_is_refused_or_works(pattern: str, tokens: bool, data: st.DataObject) -> None:
    of_tokens = {"num_tokens": 9, "max_seq_len": 5} if tokens else {}
    value = json.loads(graph(pattern, rotary_pos_emb=not tokens, residual_attn=True, **of_tokens).to_json())
    for _ in range(data.draw(st.integers(1, 2))):
        where = places(value)
        holder, key = data.draw(st.sampled_from(where))
        damage = data.draw(st.sampled_from(["junk", "gone", "another's", "another's", "another's"]))
        if damage == "junk":
            holder[key] = data.draw(JUNK)
        elif damage == "gone":
            del holder[key]
        else:  # a value of the same type from elsewhere: much of it is a graph still, but another one
            alike = [
                at[k] for at, k in where if type(at[k]) is type(holder[key]) and not isinstance(at[k], dict | list)
            ]
            holder[key] = data.draw(st.sampled_from(alike)) if alike else None
    try:
        g = BlockGraph.from_json(json.dumps(value))
    except GraphError:
        return
    assert g.parameters() >= 0
    assert g.flops(3) >= 0
    assert g.to_text()
    assert g.to_text(ascii=True)
    g.why_not_cached()
    assert BlockGraph.from_json(g.to_json()) == g
    assert sum(p.numel() for p in xt_blocks.lower(g).parameters()) == g.parameters()


def test_files_of_0_1_0_name_node_types_and_block_kinds_otherwise() -> None:
    g = blockdsl.compile("a c & f | a@x f a@x", dim=16, heads=2, causal=True, rotary_pos_emb=True)
    plain = json.loads(g.to_json())
    old = {"type": "kind", "kind": "block"}
    plain["nodes"] = [{old.get(name, name): value for name, value in node.items()} for node in plain["nodes"]]
    assert {"kind": "block", "block": "c"}.items() <= next(n for n in plain["nodes"] if n["id"] == "c1").items()
    assert BlockGraph.from_json(json.dumps(plain)).to_json() == g.to_json()
