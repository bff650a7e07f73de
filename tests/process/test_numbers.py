"""A number of NumPy, or a tensor of a single one, is a number wherever one is asked for, and becomes Python's own."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch

import blockdsl
import xt_blocks
from blockdsl import BlockGraph, GraphError, Option, State
from blockdsl.registry.kinds import kinds
from blockdsl.registry.options import plain
from blockdsl.registry.settings import table
from blockdsl.registry.tokens import MODEL_OPTIONS

from .models import DIM, LONGEST, TOKENS, decoder, some_tokens, some_vectors, tokens_model

WHOLE: dict[str, Callable[[int], Any]] = {
    "int64": np.int64,
    "int32": np.int32,
    "uint8": np.uint8,
    "array of one": lambda n: np.array(n),
    "tensor of one": lambda n: torch.tensor(n),
}
REAL: dict[str, Callable[[float], Any]] = {
    "float64": np.float64,
    "float32": np.float32,
    "array of one": lambda x: np.array(x),
    "tensor of one": lambda x: torch.tensor(x, dtype=torch.float64),
    "fraction": lambda x: Fraction(x),
}
OPTIONS = [*table().values(), *MODEL_OPTIONS, *(option for kind in kinds().values() for option in kind.all_options())]


def is_plain(value: Any) -> bool:
    """Python's own types all the way down."""
    if isinstance(value, dict):
        return all(is_plain(key) and is_plain(inner) for key, inner in value.items())
    if isinstance(value, tuple | list):
        return all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_takes_them_and_still_refuses_what_is_none(option: Option) -> None:
    makers = {int: WHOLE, float: REAL, bool: {"bool": np.bool_}, str: {"str": np.str_}}[option.type]
    candidates = {int: (2, 4, 64), float: (0.5, 2.0), bool: (True, False), str: option.choices}[option.type]
    if option.many:
        makers = {"list": list, "array": np.array, "tensor": torch.tensor}
        candidates = ((0.5, 2.0), (2.0,))
    fitting = [value for value in candidates if option.fault(value) is None]
    assert fitting
    for make in makers.values():
        for value in fitting:
            assert option.fault(make(value)) is None
            assert plain(make(value)) == (list(value) if option.many else value)
            assert is_plain(plain(make(value)))
    wrong: list[Any] = [np.array([[1, 2], [3, 4]]), torch.zeros(2, 2), np.float64("nan"), 1j, b"4"]
    if option.type in (int, float):
        wrong += [np.bool_(True), np.float64("inf"), np.int64(-(2**62)), np.str_("4"), True]
    if option.type is int:
        wrong += [np.float64(2.5), torch.tensor(2.5)]
    for value in wrong:
        assert option.fault(value), value


def test_a_graph_compiled_from_them_is_that_of_pythons_own() -> None:
    own = {"dim": 16, "heads": 2, "attn_dim_head": 8, "ff_mult": 2, "attn_dropout": 0.25, "causal": True}
    around = {"num_tokens": 9, "max_seq_len": 5, "emb_dropout": 0.5, "num_memory_tokens": 2}
    want = blockdsl.compile("a f", **own, **around)
    makers = {int: np.int64, float: np.float64, bool: np.bool_}
    graph = blockdsl.compile("a f", **{name: makers[type(value)](value) for name, value in (own | around).items()})
    assert graph.to_json() == want.to_json()
    assert all(is_plain(attrs) for _, attrs in graph.nx.nodes(data=True))
    again = blockdsl.compile("a f", **own).with_tokens(
        np.int64(9), np.int32(5), emb_dropout=np.float32(0.5), num_memory_tokens=np.int8(2)
    )
    assert again.to_json() == want.to_json()


def test_the_text_is_canonical() -> None:
    pattern = xt_blocks.Decoder(
        dim=np.int64(16),
        depth=np.int64(2),
        heads=np.int32(2),
        shift_tokens=np.array([1, 0, 1, 0]),
        layer_dropout=np.array([0.0, 0.5, 0.0, 0.5]),
    ).pattern
    assert pattern == "(a(layer_dropout=0)>>1 f(layer_dropout=0.5)>>0)*2"
    assert str(blockdsl.parse("a*2", np.int64(4))) == "a*2"
    assert blockdsl.parse("a*2", np.int64(4)).max_blocks == 4
    assert xt_blocks.Encoder(dim=16, custom_layers=np.array(["a", "f"]), heads=2).pattern == "a f"
    assert (
        xt_blocks.Encoder(dim=16, depth=torch.tensor(3), sandwich_coef=np.int8(1), heads=2).pattern == "sandwich(1, 3)"
    )


def test_an_edited_graph_counts_exactly_and_lowers() -> None:
    """NumPy's numbers overflow in silence."""
    graph = blockdsl.compile("(a f)*2", dim=16, heads=2, attn_dim_head=8, num_tokens=9, max_seq_len=5)
    edited = graph.copy()
    edited.nx.graph["dim"] = np.int16(16)
    edited.nx.nodes["input"]["num_tokens"] = np.int16(9)
    for node in edited.nodes("block"):
        for name, value in edited.nx.nodes[node]["options"].items():
            if type(value) is int:
                edited.nx.nodes[node]["options"][name] = np.int8(value)
        edited.nx.nodes[node]["stage"] = np.int8(0)
    for count in (graph.parameters(), graph.flops(10**6), graph.kv_cache_bytes(10**6)):
        assert count > 2**12
    assert edited.parameters() == graph.parameters()
    assert edited.flops(np.int32(10**6), np.int8(3)) == graph.flops(10**6, 3)
    assert edited.kv_cache_bytes(10**6) == graph.kv_cache_bytes(10**6)
    assert type(edited.parameters()) is type(edited.flops(3)) is int
    assert json.loads(edited.to_json()) == json.loads(graph.to_json())
    assert not graph.diff(edited)
    model = xt_blocks.lower(edited)
    assert sum(parameter.numel() for parameter in model.parameters()) == graph.parameters()
    assert all(is_plain(attrs) for _, attrs in model.graph.nx.nodes(data=True))


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE)
def test_models_and_wrappers_take_them(make: Callable[[int], Any]) -> None:
    model = xt_blocks.TransformerWrapper(
        num_tokens=make(TOKENS),
        max_seq_len=make(LONGEST),
        max_mem_len=make(3),
        num_memory_tokens=make(1),
        attn_layers=decoder(rotary_pos_emb=True),
    )
    assert type(model.num_tokens) is type(model.max_seq_len) is type(model.max_mem_len) is int
    x = some_tokens()
    wrapper = xt_blocks.AutoregressiveWrapper(
        model, ignore_index=make(3), pad_value=make(1), mask_prob=np.float32(0.25)
    )
    assert (wrapper.ignore_index, wrapper.pad_value, wrapper.mask_prob) == (3, 1, 0.25)
    want = xt_blocks.AutoregressiveWrapper(model).generate(x, 3, top_k=1)
    assert torch.equal(
        wrapper.generate(x, make(3), top_k=make(1), temperature=make(1), eos_token=make(TOKENS - 1)), want
    )
    cache = model.new_cache(make(2), make(7), prepended=make(1))
    assert (type(cache.batch), type(cache.max_len)) == (int, int)
    xt_blocks.XLAutoregressiveWrapper(model, pad_value=make(1)).generate(x, make(2))
    vectors = xt_blocks.ContinuousTransformerWrapper(max_seq_len=make(LONGEST), dim_in=make(DIM), attn_layers=decoder())
    assert xt_blocks.ContinuousAutoregressiveWrapper(vectors).generate(some_vectors(), make(2)).shape == (2, 2, DIM)
    images = xt_blocks.ViTransformerWrapper(
        image_size=(make(8), make(4)),
        patch_size=make(4),
        num_classes=make(3),
        channels=make(1),
        attn_layers=xt_blocks.Encoder(dim=make(DIM), depth=make(1), heads=make(2)),
    )
    assert images(torch.zeros(1, 1, 8, 4)).shape == (1, 3)
    assert xt_blocks.attention_map(model, x, "a0", make(1), make(1)).shape == (8, 8)
    assert xt_blocks.Attention(make(DIM), heads=make(2))(some_vectors()).shape == (2, 7, DIM)
    assert json.loads(model.graph.to_json())["nodes"][0]["num_tokens"] == TOKENS
    assert pickle.loads(pickle.dumps(model.graph)) == model.graph


@pytest.mark.parametrize("make", REAL.values(), ids=REAL)
def test_generation_takes_real_numbers(make: Callable[[float], Any]) -> None:
    wrapper, x = xt_blocks.AutoregressiveWrapper(tokens_model()), some_tokens()
    own = {"temperature": 0.5, "top_p": 0.75, "top_a": 0.125, "min_p": 0.0625}
    seeded = [torch.Generator().manual_seed(1) for _ in range(2)]
    want = wrapper.generate(x, 4, generator=seeded[0], **own)
    assert torch.equal(wrapper.generate(x, 4, generator=seeded[1], **{n: make(v) for n, v in own.items()}), want)


def test_a_masked_model_takes_them() -> None:
    net = tokens_model(xt_blocks.Encoder(dim=DIM, depth=1, heads=2))
    wrapper = xt_blocks.NonAutoregressiveWrapper(
        net, mask_id=np.int64(12), steps=np.int8(2), no_replace_prob=np.float32(0.25)
    )
    assert (wrapper.mask_id, wrapper.steps, wrapper.no_replace_prob) == (12, 2, 0.25)
    assert wrapper.generate(np.int64(2), start_temperature=np.float32(0.5)).shape == (2, LONGEST)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: m.generate(x, np.bool_(True)), "seq_len must be a whole number of at least 0, not true"),
        (lambda m, x: m.generate(x, np.array([1, 2])), r"seq_len must be a whole number of at least 0, not \(1, 2\)"),
        (lambda m, x: m.generate(x, "3"), "seq_len must be a whole number of at least 0, not '3'"),
        (lambda m, x: m.generate(x, 2, temperature=np.float64("nan")), "temperature must be .*, not nan"),
        (lambda m, x: m.generate(x, 2, temperature=None), "temperature must be .*, not None"),
        (lambda m, x: m.generate(x, 2, top_k=np.float64(2.0)), "top_k must be a whole number .*, not 2.0"),
        (lambda m, x: m.generate(x, 2, eos_token=np.bool_(True)), "eos_token must be a token"),
        (lambda m, x: m.net.new_cache(True), "batch must be a whole number of at least 0, not true"),
        (lambda m, x: m.net.new_cache(2, np.float32(3)), "max_len must be a whole number"),
        (lambda m, x: m.net.graph.flops(np.float64("inf")), "seq_len must be a whole number"),
        (lambda m, x: blockdsl.parse("a", True), "max_blocks must be a whole number of at least 1, not true"),
        (lambda m, x: State((2.5,)), "a state's shape must be a whole number of at least 0, not 2.5"),
    ],
)
def test_what_is_no_number_is_refused_in_words(call: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(xt_blocks.AutoregressiveWrapper(tokens_model()), some_tokens())


# Graphs that are frozen, views, or parts of others ------------------------------------------------------------------


def views(graph: BlockGraph) -> dict[str, Any]:
    every = [*graph.nx]
    return {
        "frozen": nx.freeze(graph.copy().nx),
        "view": nx.subgraph_view(graph.nx),
        "part": graph.nx.subgraph(every),
        "copy of a part": graph.nx.subgraph(every).copy(),
        "read-only": graph.nx.copy(as_view=True),
        "from JSON": BlockGraph.from_json(graph.to_json()).nx,
        "from a pickle": pickle.loads(pickle.dumps(graph)).nx,
        "from a pickle of a frozen one": pickle.loads(pickle.dumps(nx.freeze(graph.copy().nx))),
    }


@pytest.mark.parametrize("how", views(blockdsl.compile("a", dim=16, heads=2)))
@pytest.mark.parametrize("model", [{}, {"num_tokens": TOKENS, "max_seq_len": LONGEST}], ids=["stack", "model"])
def test_a_graph_lowers_however_it_is_held(how: str, model: dict[str, int]) -> None:
    graph = blockdsl.compile("a & (f a) | a@x f a@x", dim=DIM, heads=2, causal=True, rotary_pos_emb=True, **model)
    held = BlockGraph(views(graph)[how])
    torch.manual_seed(0)
    want = xt_blocks.lower(graph)
    torch.manual_seed(0)
    got = xt_blocks.lower(held)
    x = some_tokens() if model else some_vectors()
    assert torch.equal(got(x), want(x))
    assert held.parameters() == graph.parameters()
    held.lint().to_text()
    assert not graph.diff(held)
    edited = held.copy()
    edited.nx.add_edge("input", "output")  # a copy is free
    assert held.with_vectors(7).reads == "vectors" if not model else held.stack_alone().reads is None


def test_a_copy_keeps_the_order_of_nodes_and_of_what_they_read() -> None:
    graph = blockdsl.compile("(a & f & a) (f a)*2", dim=16, heads=2, residual_attn=True)
    copy = graph.copy()
    assert [*copy.nx] == [*graph.nx]
    assert copy.order() == graph.order()
    assert {node: [*copy.nx.pred[node].items()] for node in copy.nx} == {
        node: [*graph.nx.pred[node].items()] for node in graph.nx
    }
    copy.nx.nodes["a0"]["options"]["heads"] = 4
    assert graph.nx.nodes["a0"]["options"]["heads"] == 2


def test_what_is_no_directed_graph_is_named() -> None:
    graph = blockdsl.compile("a f", dim=16, heads=2)
    for wrong in (nx.MultiDiGraph(graph.nx), nx.Graph(graph.nx), None, graph.to_json()):
        with pytest.raises(GraphError, match=rf"must be a networkx.DiGraph, not {type(wrong).__name__}"):
            xt_blocks.lower(BlockGraph(wrong))
