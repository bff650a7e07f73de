"""Costs counted from the graph, against arithmetic by hand, the lowered module, torch's counter and a filled cache."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import blockdsl
import xt_blocks
from blockdsl import BlockGraph, Sizes, UserError
from blockdsl.graph.costs import Cost, by_stage, node_costs

from ..blocks.variants import SIZES as VARIANT_SIZES
from ..blocks.variants import VARIANTS
from .patterns import Model, models

SIZES = {"dim": 12, "heads": 2, "attn_dim_head": 4}
TOKENS = {"num_tokens": 30, "max_seq_len": 16}

TABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("(a f)*2", {}),
    "causal": ("(a f)*2", {"causal": True}),
    "cross": ("(a c f)*2", {}),
    "own heads": ("a(heads=3) a(dim_head=7) c(heads=1, dim_head=2) f", {}),
    "head by dim": ("a f", {"attn_dim_head": None}),
    "feedforwards": ("f(glu) f(mult=2.5) f(no_bias) f(glu, no_bias, swish) f(relu_squared, mult=0.5)", {}),
    "norms": ("a(use_rmsnorm) f(pre_norm=false) a", {"use_rmsnorm": False}),
    "rmsnorm": ("(a f)*2", {"use_rmsnorm": True}),
    "post-norm": ("(a f)*2", {"pre_norm": False}),
    "parallel": ("a & f & (f a f) | a & c", {}),
    "shift and scale": ("a>>1/2 f>>2/3", {}),
    "rotary": ("a a(dim_head=8) f", {"rotary_pos_emb": True}),
    "residual": ("(a c f)*3", {"residual_attn": True, "cross_residual_attn": True}),
    "ties": ("(a@x f@y)*3 a f@y", {}),
    "tied group": ("(a f c)@g f (a f c)@g", {}),
    "tokens": ("a f", TOKENS),
    "tokens, tied": ("a f", TOKENS | {"tie_embedding": True}),
    "tokens, transformed": (
        "a f",
        TOKENS | {"tie_embedding": True, "emb_dim": 6, "logits_transform": "gelu", "num_token_types": 2},
    ),
    "tokens, pooled": ("a f", TOKENS | {"pool": "mean", "pooler": True, "logits_dim": 3, "logits_transform": "gelu"}),
    "tokens, class tokens": ("a f", TOKENS | {"pool": "cls", "num_cls_tokens": 3, "pooler": True, "causal": False}),
    "tokens, attended": (
        "a f",
        TOKENS | {"pool": "attention", "num_pooled_tokens": 2, "pool_heads": 2, "pool_dim_head": 5, "pool_bias": False},
    ),
    "tokens, attended, alone": ("a f", TOKENS | {"pool": "attention", "pool_heads": 2, "pool_inner": 0}),
    "tokens, transformed, own": ("a f", TOKENS | {"logits_transform": "tanh", "logits_bias": False}),
    "tokens, no positions": ("a f", TOKENS | {"use_abs_pos_emb": False}),
    "tokens, rotary": ("a f", TOKENS | {"rotary_pos_emb": True, "use_rmsnorm": True}),
    "tokens, memory tokens": ("a c f", TOKENS | {"num_memory_tokens": 3}),
    "tokens, emb_dim": ("a f", TOKENS | {"emb_dim": 6, "post_emb_norm": True}),
    "tokens, emb_dim as dim": ("a f", TOKENS | {"emb_dim": 12}),
    "tokens, sinusoids": ("a f", TOKENS | {"scaled_sinu_pos_emb": True, "l2norm_embed": True}),
    "tokens, logits": ("a f", TOKENS | {"logits_dim": 5}),
    "tokens, no logits": ("a f", TOKENS | {"return_only_embed": True}),
    "one block": ("f", {"pre_norm": False}),
    "conditions": (
        "a f(use_adaptive_layerscale) c",
        {"use_adaptive_rmsnorm": True, "sandwich_norm": True, "dim_condition": 50, "adaptive_condition_mlp": True},
    ),
}


CAUSAL = VARIANT_SIZES | {"causal": True}
TABLE |= {f"variant: {name}": (pattern, CAUSAL | own) for name, (pattern, own) in VARIANTS.items()}


def graph(name: str, **keywords: Any) -> BlockGraph:
    pattern, own = TABLE[name]
    return blockdsl.compile(pattern, **(SIZES | own | keywords))


def numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def counted(g: BlockGraph, batch: int, seq: int, context: int) -> int:
    """What torch counts in one forward pass."""
    model = xt_blocks.lower(g).eval().requires_grad_(False)
    tokens = g.nx.nodes["input"]["num_tokens"]
    x = torch.randn(batch, seq, g.dim) if tokens is None else torch.randint(tokens, (batch, seq))
    beside = {"context": torch.randn(batch, context, g.dim_context)} if g.nodes("context") else {}
    if g.nodes("condition"):
        beside["condition"] = torch.randn(batch, g.condition[0])
    # torch's counter knows no formula for the CPU's fused attention kernel and would count it as nothing
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(x, **beside)
    return counter.get_total_flops()


def cached(g: BlockGraph, dtype: torch.dtype, batch: int, max_len: int, context: int) -> int:
    """Bytes of a cache that a lowered stack has filled; a cache is allocated for the longest sequence at once."""
    stack = xt_blocks.lower(g.stack_alone()).to(dtype).eval()
    max_len += g.nx.nodes["input"]["num_memory_tokens"]  # of the tokens in front, which the cache holds too
    cache = stack.new_cache(batch, max_len)
    beside = {"context": torch.randn(batch, context, g.dim_context, dtype=dtype)} if g.nodes("context") else {}
    if g.nodes("condition"):
        beside["condition"] = torch.randn(batch, g.condition[0], dtype=dtype)
    with torch.no_grad():
        stack(torch.randn(batch, min(2, max_len), g.dim, dtype=dtype), **beside, cache=cache)
    return cache.bytes()


def within_two_percent(count: int, want: int) -> bool:
    return abs(count - want) <= 0.02 * want


# By hand -----------------------------------------------------------------------------------------------------------


def test_a_small_decoder_by_hand() -> None:
    g = blockdsl.compile("a f", dim=6, heads=2, attn_dim_head=4, causal=True)
    attention = (3 * 8) * 6 + 6 * 8 + (6 + 6)  # queries, keys, values; output; gain and bias of the norm
    feedforward = (24 * 6 + 24) + (6 * 24 + 6) + (6 + 6)
    assert (attention, feedforward) == (204, 330)
    assert g.parameters() == 204 + 330 + 12 == 546

    # 3 rows of 5 tokens, two a multiply-add; both products of the attention are counted whole
    project, scores, weigh, back = 2 * 15 * 6 * 24, 2 * 3 * 2 * 5 * 5 * 4, 2 * 3 * 2 * 5 * 5 * 4, 2 * 15 * 8 * 6
    assert (project, scores, weigh, back) == (4320, 1200, 1200, 1440)
    assert g.flops(5, batch=3) == 4320 + 1200 + 1200 + 1440 + 2 * (2 * 15 * 6 * 24) == 16_800
    assert g.flops(5) == 16_800 // 3

    assert g.kv_cache_bytes(5, batch=3) == 2 * (2 * 4) * 5 * 3 * 4 == 960
    assert g.kv_cache_bytes(5, batch=3, dtype="bfloat16") == 480
    assert g.kv_cache_bytes(5) == 320


def test_a_small_model_over_tokens_by_hand() -> None:
    around = {"emb_dim": 4, "post_emb_norm": True, "num_memory_tokens": 2, "logits_dim": 3}
    g = blockdsl.compile("a f", dim=6, heads=2, attn_dim_head=4, causal=True, num_tokens=10, max_seq_len=7, **around)
    embedding, positions, norm, project, memory, logits = 10 * 4, 7 * 4, 4 + 4, 4 * 6 + 6, 2 * 6, 6 * 3 + 3
    assert g.parameters() == 546 + embedding + positions + norm + project + memory + logits == 546 + 139

    # 3 rows of 5 tokens, of 7 places in the stack
    attention = 2 * 21 * 6 * 24 + 2 * (2 * 3 * 2 * 7 * 7 * 4) + 2 * 21 * 8 * 6
    feedforward, project, logits = 2 * (2 * 21 * 6 * 24), 2 * 15 * 4 * 6, 2 * 15 * 6 * 3
    assert g.flops(5, batch=3) == attention + feedforward + project + logits == 12_768 + 12_096 + 1260
    assert g.kv_cache_bytes(5, batch=3) == 2 * (2 * 4) * 7 * 3 * 4


def test_a_small_cross_attender_by_hand() -> None:
    g = blockdsl.compile("c f(glu, no_bias)", dim=6, heads=1, attn_dim_head=5, ff_mult=2, use_rmsnorm=True)
    attention = 5 * 6 + (2 * 5) * 6 + 6 * 5 + 6
    feedforward = (2 * 12) * 6 + 6 * 12 + 6
    assert g.parameters() == attention + feedforward + 6 == 126 + 222 + 6

    # 2 rows of 4 tokens that read 7 tokens of context
    queries, keys_values, scores, weigh, back = 2 * 8 * 6 * 5, 2 * 14 * 6 * 10, 2 * 2 * 4 * 7 * 5, 560, 2 * 8 * 5 * 6
    assert (queries, keys_values, scores, back) == (480, 1680, 560, 480)
    hidden, out = 2 * 8 * 6 * 24, 2 * 8 * 12 * 6
    want = queries + keys_values + scores + weigh + back + hidden + out
    assert g.flops(4, batch=2, context_len=7) == want == 7216
    assert g.kv_cache_bytes(4, batch=2, context_len=7) == 2 * 5 * 7 * 2 * 4  # of the context, however many tokens
    assert g.flops(4) == g.flops(4, context_len=4)


def test_albert_counts_parameters_once_and_work_every_time() -> None:
    tied = blockdsl.compile("(a@x f@y)*12", dim=8, heads=2, attn_dim_head=4)
    once = blockdsl.compile("a f", dim=8, heads=2, attn_dim_head=4)
    free = blockdsl.compile("(a f)*12", dim=8, heads=2, attn_dim_head=4)
    assert tied.parameters() == once.parameters()
    assert free.parameters() - 16 == 12 * (once.parameters() - 16)
    assert tied.flops(9, batch=2) == free.flops(9, batch=2) == 12 * once.flops(9, batch=2)
    assert tied.kv_cache_bytes(9) == free.kv_cache_bytes(9) == 12 * once.kv_cache_bytes(9)


def test_gpt3_by_hand() -> None:
    dim, depth, heads, head, vocabulary, context = 12288, 96, 96, 128, 50257, 2048
    g = blockdsl.compile(
        f"(a f)*{depth}",
        dim=dim,
        heads=heads,
        attn_dim_head=head,
        causal=True,
        num_tokens=vocabulary,
        max_seq_len=context,
        tie_embedding=True,
    )
    attention = 4 * dim * dim  # heads · dim_head is dim
    feedforward = 2 * (4 * dim) * dim + 4 * dim + dim
    norms = 2 * (2 * dim)
    blocks = depth * (attention + feedforward + norms)
    assert blocks == 96 * (12 * dim * dim + 9 * dim) == 173_956_792_320
    embedding, positions, final = vocabulary * dim, context * dim, 2 * dim
    assert g.parameters() == blocks + embedding + positions + final == 174_599_540_736
    assert round(g.parameters() / 1e9) == 175

    # a forward pass of one full row: two FLOPs for each weight a token meets, and the products of the attention
    weights = depth * 12 * dim * dim + vocabulary * dim
    products = depth * 2 * 2 * context * context * dim
    assert g.flops(context) == 2 * context * weights + products
    # keys and values of every block, in two bytes
    assert g.kv_cache_bytes(context, dtype="float16") == depth * 2 * dim * context * 2 == 9_663_676_416


# Against the module ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE)
def test_parameters_are_those_of_the_module(name: str) -> None:
    g = graph(name)
    assert g.parameters() == numbers(xt_blocks.lower(g))


@settings(max_examples=80)
@given(models())
def test_parameters_of_random_patterns_are_those_of_the_module(model: Model) -> None:
    g = blockdsl.compile(model.text, **model.settings)
    with torch.device("meta"):
        assert g.parameters() == numbers(xt_blocks.lower(g))


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize(("batch", "seq", "context"), [(1, 7, 7), (3, 11, 5), (2, 1, 13)])
def test_flops_are_those_that_torch_counts(name: str, batch: int, seq: int, context: int) -> None:
    g = graph(name)
    assert within_two_percent(g.flops(seq, batch, context), counted(g, batch, seq, context))


@settings(max_examples=25)
@given(models(), st.integers(1, 3), st.integers(1, 11), st.integers(1, 9))
def test_flops_of_random_patterns_are_those_that_torch_counts(model: Model, batch: int, seq: int, context: int) -> None:
    g = blockdsl.compile(model.text, **model.settings)
    assert within_two_percent(g.flops(seq, batch, context), counted(g, batch, seq, context))


def test_the_count_is_not_loose_enough_to_miss_a_block() -> None:
    # what "within 2%" is worth: one feedforward of forty fewer is outside
    more, fewer = (blockdsl.compile(f"f*{n}", **SIZES) for n in (40, 39))
    assert not within_two_percent(fewer.flops(7), counted(more, 1, 7, 7))


@pytest.mark.parametrize("name", [name for name in TABLE if name != "tokens, class tokens"])  # these are not causal
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_cache_bytes_are_those_a_cache_holds(name: str, dtype: str) -> None:
    g = graph(name, causal=True)
    want = cached(g, getattr(torch, dtype), batch=2, max_len=9, context=5)
    assert g.kv_cache_bytes(9, batch=2, dtype=dtype, context_len=5) == want


@settings(max_examples=25)
@given(models(), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.sampled_from(["float32", "bfloat16"]))
def test_cache_bytes_of_random_patterns_are_those_a_cache_holds(
    model: Model, batch: int, max_len: int, context: int, dtype: str
) -> None:
    g = blockdsl.compile(model.text, **(model.settings | {"causal": True}))
    assume(g.why_not_cached() is None)
    want = cached(g, getattr(torch, dtype), batch, max_len, context)
    assert g.kv_cache_bytes(max_len, batch, dtype, context) == want


def test_a_stack_says_why_it_cannot_be_cached() -> None:
    assert graph("plain", causal=True).why_not_cached() is None
    assert graph("plain").why_not_cached() == "a0 (self-attention) is not causal"
    assert blockdsl.compile("f a(causal=false)", causal=True, **SIZES).why_not_cached() == (
        "a1 (self-attention) is not causal"
    )
    assert blockdsl.compile("a(causal) f>>1", **SIZES).why_not_cached() == "f1 shifts tokens from both sides"
    assert blockdsl.compile("c f", **SIZES).why_not_cached() is None


# Parts of a cost ---------------------------------------------------------------------------------------------------


def test_nodes_add_up_and_a_tied_block_costs_its_owner() -> None:
    g = blockdsl.compile("(a f@y)*2", **(SIZES | TOKENS | {"tie_embedding": True}))
    costs = dict(node_costs(g, Sizes(batch=1, seq=3, context=3)))
    assert costs["f3"] == Cost(blocks=1, parameters=0, flops=costs["f1"].flops, cached=0)
    assert costs["f1"].parameters == 8 * 12 * 12 + 7 * 12
    assert costs["input"].parameters == 30 * 12
    assert costs["absolute"].parameters == 16 * 12
    assert costs["output"] == Cost(parameters=24, flops=2 * 3 * 12 * 30)
    assert sum(cost.parameters for cost in costs.values()) == g.parameters()
    assert sum(cost.flops for cost in costs.values()) == g.flops(3)


def test_costs_are_added_and_multiplied_part_by_part() -> None:
    cost = Cost(blocks=1, parameters=5, flops=7, cached=2, cached_bytes=3, cached_float32=4, idle=1)
    three = Cost(blocks=3, parameters=15, flops=21, cached=6, cached_bytes=9, cached_float32=12, idle=3)
    assert cost + cost + cost == cost * 3 == 3 * cost == sum([cost] * 3, Cost()) == three
    assert (three.active, three.cache_bytes(2)) == (12, 6 * 2 + 9 + 12 * 4)


def test_stages_add_up() -> None:
    g = blockdsl.compile("f a f | deep: (a & f)*2 f | f", **(SIZES | TOKENS))
    rows = dict(by_stage(g, Sizes(1, 5, 5)))
    assert [*rows] == ["embedding", "1", "2: deep", "3", "head"]
    assert [cost.blocks for cost in rows.values()] == [0, 3, 5, 1, 0]
    total = sum(rows.values(), Cost())
    assert (total.parameters, total.flops, 4 * total.cached) == (g.parameters(), g.flops(5), g.kv_cache_bytes(5))
    alone = blockdsl.compile("(a & f)*2 f", **SIZES)
    assert rows["2: deep"].parameters == alone.parameters() - 24


# Errors ------------------------------------------------------------------------------------------------------------


def test_an_unknown_dtype_lists_the_known_ones() -> None:
    g = graph("plain")
    assert g.kv_cache_bytes(3, dtype=torch.bfloat16) == g.kv_cache_bytes(3, dtype="bfloat16")  # type: ignore[arg-type]
    with pytest.raises(UserError) as error:
        g.kv_cache_bytes(3, dtype="float31")
    assert str(error.value) == (
        "unknown dtype 'float31'; known: float64, float32, float16, bfloat16, float8_e4m3fn, float8_e5m2, int8"
    )


def test_sizes_that_are_no_counts_are_refused() -> None:
    g = graph("cross")
    for name, call in (
        ("seq_len", lambda value: g.flops(value)),
        ("batch", lambda value: g.flops(3, batch=value)),
        ("context_len", lambda value: g.flops(3, context_len=value)),
        ("seq_len", lambda value: g.kv_cache_bytes(value)),
        ("batch", lambda value: g.kv_cache_bytes(3, batch=value)),
    ):
        for value in (-1, 1.5, "3"):
            with pytest.raises(UserError) as error:
                call(value)
            assert str(error.value) == f"{name} must be a whole number of at least 0, not {value!r}"
    assert g.flops(0) == 0
    assert g.kv_cache_bytes(0) == 0


# No torch ----------------------------------------------------------------------------------------------------------

EVERYTHING = """
import sys, blockdsl
from blockdsl.graph.costs import by_stage, sizes
g = blockdsl.compile("(a@x c f)*2 | a & f", dim=12, num_tokens=9, max_seq_len=5, rotary_pos_emb=True, residual_attn=True)
g.parameters(), g.flops(4), g.kv_cache_bytes(4, dtype="bfloat16"), by_stage(g, sizes(4, 1)), g.why_not_cached()
g.to_text(), blockdsl.BlockGraph.from_json(g.to_json()).lint(), g.with_tokens(7, 5), g.stack_alone(), repr(g)
"""


def loads_torch(script: str) -> bool:
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\nprint('torch' in sys.modules)"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip() == "True"


def test_a_graph_is_compiled_costed_drawn_and_written_without_torch() -> None:
    assert not loads_torch(EVERYTHING)
    assert loads_torch(EVERYTHING + "import xt_blocks; xt_blocks.lower(g)")  # so the check can see it


def test_the_network_of_a_dynamic_bias_counts() -> None:
    """Its share of a model is within the bound of the other tests, so it is held by itself."""
    plain, biased = (
        blockdsl.compile("a f", **SIZES, dynamic_pos_bias=on, dynamic_pos_bias_mlp_depth=3 if on else 2)
        for on in (False, True)
    )
    added = counted(biased, 2, 9, 0) - counted(plain, 2, 9, 0)
    assert added == 2 * 17 * (1 * 3 + 2 * 3 * 3 + 3 * 2)  # 17 distances, 12 // 4 hidden features, 2 heads
    assert biased.flops(9, 2) - plain.flops(9, 2) == added
