"""Tensor parallelism: the shares of ranks give what the whole model gives, and so do their gradients."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

import blockdsl
import xt_blocks
from blockdsl import Cut, Kind, Option, Split, UserError
from blockdsl.plan.local import tensor_part, tensor_splits
from xt_blocks.distributed.tensor import cuts, tensor_parallel
from xt_blocks.runtime.intermediates import Intermediates

from .split_models import compare, compiled, run_pass, share, whole_model
from .threads import of_threads

RANKS = [pytest.param(2, marks=pytest.mark.distributed), 4]

ATTENTION: dict[str, dict[str, Any]] = {
    "plain": {},
    "not causal": {"causal": False},
    "grouped": {"attn_kv_heads": 2},
    "one kv head": {"attn_one_kv_head": True},
    "shared kv": {"attn_shared_kv": True, "attn_kv_heads": 2},
    "values of another size": {"attn_value_dim_head": 6},
    "biases": {"attn_qkv_bias": True, "attn_out_bias": True},
    "no bias of keys": {"attn_qkv_bias": True, "attn_k_bias": False, "attn_kv_heads": 2},
    "memory key-values": {"attn_num_mem_kv": 3, "attn_kv_heads": 2},
    "qk norm": {"attn_qk_norm": True, "attn_qk_norm_groups": 2},
    "qk norm with gains": {"attn_qk_norm": True, "attn_qk_norm_dim_scale": True, "attn_kv_heads": 2},
    "rmsnorm of heads": {"attn_qk_rmsnorm": "head", "attn_value_rmsnorm": True},
    "rmsnorm of each": {"attn_qk_rmsnorm": "each", "attn_kv_heads": 2},
    "rmsnorm of keys": {"attn_k_rmsnorm": True, "attn_kv_heads": 2, "attn_num_mem_kv": 2},
    "layernorm of heads": {"attn_qk_layernorm": "head"},
    "layernorm of each": {"attn_qk_layernorm": "each", "attn_kv_heads": 1},
    "rmsnorm of all heads": {"attn_qk_rmsnorm": "all", "attn_kv_heads": 2, "norm_unit_offset": True},
    "rmsnorm of all queries": {"attn_qk_rmsnorm": "all", "attn_kv_heads": 1, "rotary_pos_emb": True},
    "sink": {"attn_sink": True},
    "zero key": {"attn_add_zero_kv": True},
    "sigmoid": {"attn_sigmoid": True},
    "softcap": {"attn_softcap": 4.0},
    "top scores": {"attn_sparse_topk": 3},
    "l2 distance": {"attn_l2_distance": True},
    "laser": {"attn_laser": True},
    "head scale": {"attn_head_scale": True},
    "gates": {"attn_gate_values": True},
    "gates by head": {"attn_gate_values": True, "attn_gate_values_headwise": True, "attn_gate_bias": False},
    "tensor product": {"attn_tensor_product": True, "attn_kv_heads": 2},
    "forget gate": {"attn_forget_gate": True, "attn_kv_heads": 2},
    "window": {"attn_max_attend_past": 3},
    "rotary": {"rotary_pos_emb": True, "attn_kv_heads": 2},
    "T5": {"rel_pos_bias": True},
    "ALiBi": {"alibi_pos_bias": True},
    "learned ALiBi": {"alibi_pos_bias": True, "alibi_learned": True},
    "dynamic bias": {"dynamic_pos_bias": True, "dynamic_pos_bias_norm": True},
    "T5 and ALiBi": {"rel_pos_bias": True, "alibi_pos_bias": True},
    "latent": {"attn_kv_rank": 6, "attn_qkv_bias": True, "rotary_pos_emb": True},
    "latent queries": {"attn_kv_rank": 6, "attn_q_rank": 5},
    "residual attention": {"residual_attn": True, "rel_pos_bias": True},
}

PATTERNS: dict[str, tuple[str, dict[str, Any]]] = {
    "glu": ("f(glu)*2", {}),
    "glu, all": ("f", {"ff_glu": True, "ff_gate_first": True, "ff_glu_mult_bias": True, "ff_swish": True}),
    "no bias": ("f", {"ff_no_bias": True}),
    "keys of another": ("a ^k f a(kv=k) a", {"attn_kv_heads": 2, "rotary_pos_emb": True}),
    "values of another": ("a ^k f a(values=k, value_mix=learned) a(values=k)", {"attn_kv_heads": 2}),
    "scores of another": ("a ^k f a(scores=k)", {}),
    "shared block": (
        "^u f (^x a(concat=u, lora_rank=3, kv_heads=2)@a f(lora_rank=2, glu)@f <x(linear) f(scale_residual_constant=0))*2",
        {"attn_shared_kv": True, "attn_gate_values": True},
    ),
    "ties": ("(a f)@u*3", {"rel_pos_bias": True, "attn_out_bias": True}),
    "low-rank parts of ties": (
        "(a(lora_rank=2) f(lora_rank=3, glu))@u*3",
        {"attn_kv_heads": 2, "attn_qkv_bias": True, "attn_k_bias": False},
    ),
    "parallel": ("a & f (a f) & f(glu)", {}),
    "shared norm": ("(a & f)*2", {"attn_out_bias": True, "shared_norm": True}),
    "cross-attention": ("a c f c", {"attn_kv_heads": 2, "attn_qkv_bias": True, "cross_residual_attn": True}),
    "cross-attention without a bias of keys": ("c f", {"attn_qkv_bias": True, "attn_k_bias": False}),
    "context of the stream": ("a ^u f c(context=u)", {"attn_out_bias": True}),
    "experts": ("e(experts=4, inner=8)*2", {"moe_z_loss": 0.1}),
    "experts, all": (
        "e(experts=4, inner=8)",
        {"moe_glu": True, "moe_router_bias": True, "moe_shared_inner": 12, "moe_shared_gate": True,
         "moe_router": "sigmoid", "moe_groups": 2, "moe_top_groups": 2},
    ),
    "gdn": ("gdn(heads=4, dim_head=4)", {}),
    "gdn, grouped": ("gdn(heads=2, dim_head=4, value_heads=4, value_dim_head=6)", {}),
    "kda": ("kda(heads=4, dim_head=4)", {}),
    "gla": ("gla(heads=4, dim_head=4)", {}),
    "gla by head": ("gla(heads=4, dim_head=4, value_dim_head=6, decay=head)", {}),
    "retention": ("gla(heads=4, dim_head=4, decay=fixed)", {}),
    "rglru": ("rglru(heads=4)", {}),
    "mamba-2": ("m(state=4, heads=4, dim_head=8, chunk=3, gated_norm=none, bias)", {}),
    "mamba-2, groups": ("m(state=4, heads=4, dim_head=8, groups=4, gated_norm=group, gate_first=false)", {}),
    "mamba-2, scales": (
        "m(state=4, heads=4, dim_head=8, groups=2, gated_norm=none, in_scales=(1, 2, 3, 4, 5))", {},
    ),
    "mamba-2, one norm": ("m(state=4, heads=4, dim_head=8, groups=2, chunk=3)", {}),
    "mamba-2, one norm before the gate": ("m(state=4, heads=4, dim_head=8, gate_first=false, chunk=3)", {}),
    "mamba": ("mamba(state=4)", {}),
    "mamba, all": ("mamba(state=4, rmsnorm=gain, bias)*2", {}),
    "conv": ("conv conv(inner=12, bias, kernel=1)", {}),
    "hgrn": ("hgrn(heads=4, dim_head=4)", {}),
    "hidden norm": ("f(post_act_ln)*2", {"ff_glu": True}),
    "both ways": ("gla(heads=4, dim_head=4) mamba(state=4) rglru(heads=4)", {"causal": False, "bidirectional": True}),
    "residual streams": ("a f(glu)", {"num_residual_streams": 3}),
    "injected input": ("a f", {"reinject_input": True}),
    "token shift": ("a f", {"shift_tokens": 1}),
    "gates of the residual": ("a f", {"gate_residual": True, "layer_scale": 0.5, "sandwich_norm": True}),
    "recomputed": ("(a f)*2", {"checkpoint": "block", "rel_pos_bias": True}),
    "what splits beside what does not": ("a f f(inner=30) a(talking_heads)", {}),
}  # fmt: skip


def inputs_of(graph: Any, **further: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(2)
    inputs = {"x": torch.randn(2, 7, graph.dim, generator=generator, dtype=torch.float64), **further}
    if graph.nodes("context"):
        inputs["context"] = torch.randn(2, 5, graph.dim_context, generator=generator, dtype=torch.float64)
    return inputs


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("name", ATTENTION)
def test_attention(monkeypatch: pytest.MonkeyPatch, name: str, ranks: int) -> None:
    graph = compiled("a f a", **ATTENTION[name])
    assert all(isinstance(split, Split) for split in tensor_splits(graph, ranks).values())
    held_against_the_whole(monkeypatch, graph, ranks)


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("name", PATTERNS)
def test_patterns(monkeypatch: pytest.MonkeyPatch, name: str, ranks: int) -> None:
    pattern, settings = PATTERNS[name]
    graph = compiled(pattern, **settings)
    assert any(isinstance(split, Split) for split in tensor_splits(graph, ranks).values())
    held_against_the_whole(monkeypatch, graph, ranks)


@pytest.mark.parametrize("ranks", RANKS)
def test_tables_of_value_embeddings(monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    """A rank has the features of its heads, of all tokens."""
    text = "a(value_embed=0) f (a(value_embed=3, kv_heads=2, value_mix=gains) f)*2 a(value_embed=0, value_mix=learned)"
    graph = compiled(text).with_tokens(17, 32)
    tokens = torch.randint(0, 17, (2, 7), generator=torch.manual_seed(4))
    model, local = whole_model(graph), tensor_part(graph, ranks)
    assert local.value_embeds == {0: 32 // ranks, 3: max(8, 16 // ranks)}
    expected = run_pass(model, {"x": tokens})
    of_threads(monkeypatch, ranks, lambda group: compare(graph, model, {"x": tokens}, group, expected))


def test_blocks_that_would_cut_a_table_otherwise_are_whole() -> None:
    graph = compiled("a(value_embed=0, value_dim_head=4) a(value_embed=0, kv_heads=2) f")
    split = tensor_splits(graph, 4)
    assert split["a1"] == "a0 cuts the table of value_embed=0 otherwise"
    assert split["a0"] == f"it splits with a1, which does not: {split['a1']}"
    assert all(isinstance(each, Split) for each in tensor_splits(graph, 2).values())


def held_against_the_whole(monkeypatch: pytest.MonkeyPatch, graph: Any, ranks: int, **further: Any) -> None:
    model, inputs = whole_model(graph), inputs_of(graph, **further)
    expected = run_pass(model, inputs)
    of_threads(monkeypatch, ranks, lambda group: compare(graph, model, inputs, group, expected))


@pytest.mark.parametrize("name", ["padding", "attn_mask", "attn_mask by head", "documents"])
def test_masks(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An attn_mask may tell heads apart: each rank has its own."""
    graph = compiled("a f gla(heads=4, dim_head=4) a(kv_heads=2)", rel_pos_bias=True)
    masks: dict[str, dict[str, Any]] = {
        "padding": {"mask": torch.arange(7) < torch.tensor([[7], [4]])},
        "attn_mask": {"attn_mask": torch.ones(7, 7).tril(-1).bool() | torch.eye(7).bool()},
        "attn_mask by head": {"attn_mask": torch.rand(2, 4, 7, 7, generator=torch.manual_seed(3)) < 0.6},
        "documents": {"doc_ids": torch.tensor([[0, 0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 1, 1, 1]])},
    }
    held_against_the_whole(monkeypatch, graph, 2, **masks[name])


def test_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = compiled("a f gla(heads=4, dim_head=4) a(kv_heads=1)", rotary_pos_emb=True)
    whole, x = whole_model(graph).eval(), inputs_of(graph)["x"]

    def segments(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        seen = Intermediates()
        model(x[:, :4], intermediates=seen)
        out = model(x[:, 4:], mems=model.remember(None, seen, None, 4))
        out.sum().backward()
        return out.detach(), model.get_parameter("blocks.a0.norm.weight").grad

    expected = segments(whole)
    for found in of_threads(monkeypatch, 2, lambda group: segments(share(whole, graph, group))):
        torch.testing.assert_close(found, expected)


EVERY_CACHE = "conv mamba(state=4) m(state=4, heads=4) hgrn(heads=4, dim_head=4) a(kv_heads=1) ^k f a(kv=k, kv_heads=1) gdn(heads=4, dim_head=4) e(experts=4, inner=8) a(kv_rank=6, rotary=false) rglru"


@pytest.mark.parametrize("ranks", RANKS)
def test_generation(monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    """Cached steps, whose caches have the bytes that the graph of a share says."""
    graph = compiled(EVERY_CACHE, rotary_pos_emb=True, rglru_heads=4).with_tokens(17, 32)
    whole, local = whole_model(graph).eval(), tensor_part(graph, ranks)
    prompt = torch.randint(0, 17, (2, 5), generator=torch.manual_seed(4))
    expected = xt_blocks.AutoregressiveWrapper(whole).generate(prompt, 8, temperature=0.0)
    logits = whole(expected[:, :-1])

    def generated(group: Any) -> None:
        model = share(whole, graph, group)
        assert sum(p.numel() for p in model.parameters()) == local.parameters()
        cache = model.new_cache(batch=2)
        with torch.no_grad():
            steps = [model(t, cache=cache) for t in expected[:, :-1].split(1, dim=1)]
        torch.testing.assert_close(torch.cat(steps, dim=1), logits)
        assert cache.bytes() == local.kv_cache_bytes(cache.max_len, batch=2, dtype="float64")
        assert torch.equal(xt_blocks.AutoregressiveWrapper(model).generate(prompt, 8, temperature=0.0), expected)
        xt_blocks.pack(model.float())
        again = xt_blocks.AutoregressiveWrapper(model).generate(prompt, 8, temperature=0.0)
        assert torch.equal(again, expected)

    of_threads(monkeypatch, ranks, generated)


def test_an_encoder_and_a_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = compiled("(a f)*2 => a c f", rel_pos_bias=True, attn_out_bias=True, dec_heads=2)
    whole = whole_model(graph)
    inputs = {"x": inputs_of(graph)["x"], "tgt": torch.randn(2, 4, 16, dtype=torch.float64)}
    expected = run_pass(whole, inputs)
    of_threads(monkeypatch, 2, lambda group: compare(graph, whole, inputs, group, expected))


WHOLE = {
    "a(talking_heads)": "talking_heads: heads exchange scores and weights",
    "a(on_attn)": "on_attn: the output's gate is of the sum over all heads",
    "a(dropout=0.1)": "dropout: attention weights are dropped for all heads at once",
    "a(heads=6)": "heads=6 is not divisible by 4",
    "a(heads=12, kv_heads=6)": "kv_heads=6 is not divisible by 4",
    "f(inner=30)": "inner=30 is not divisible by 4",
    "e(inner=8, shared_inner=6)": "shared expert: inner=6 is not divisible by 4",
    "m(heads=2)": "heads=2 is not divisible by 4",
    "m(heads=4, dim_head=8, groups=2, gated_norm=group)": "groups=2 is not divisible by 4",
    "gdn(heads=2)": "value_heads=2 is not divisible by 4",
    "gdn(heads=3, value_heads=12)": "heads=3 is not divisible by 4",
    "kda(heads=2)": "heads=2 is not divisible by 4",
    "gla(heads=2)": "heads=2 is not divisible by 4",
    "rglru(heads=2)": "heads=2 is not divisible by 4",
    "hgrn(heads=2)": "heads=2 is not divisible by 4",
    "mamba(inner=30)": "inner=30 is not divisible by 4",
    "conv(inner=30)": "inner=30 is not divisible by 4",
}


@pytest.mark.parametrize("pattern", WHOLE)
def test_what_is_whole_on_every_rank_says_why(pattern: str) -> None:
    graph = compiled(pattern)
    assert [*tensor_splits(graph, 4).values()] == [WHOLE[pattern]]
    assert tensor_part(graph, 4) == graph


def test_blocks_that_read_each_other_split_together_or_not_at_all() -> None:
    split = tensor_splits(compiled("a(talking_heads) ^u a(scores=u) a f"), 2)
    assert split["a1"] == "it splits with a0, which does not: talking_heads: heads exchange scores and weights"
    assert isinstance(split["a2"], Split)
    assert isinstance(split["f3"], Split)
    split = tensor_splits(compiled("a(dropout=0.1) a", alibi_pos_bias=True, alibi_num_heads=4), 2)
    assert [why.split(":")[0] for why in split.values()] == [
        "dropout",
        "it splits with a0, which does not",
        "it splits with a0, which does not",
    ]
    split = tensor_splits(compiled("a", alibi_pos_bias=True, alibi_num_heads=3), 2)
    assert "alibi_num_heads=3: some of the 4 heads have no bias" in split.values()


def test_what_a_rank_holds_by_hand() -> None:
    cut = Cut(0, (8, 2, 2), (1, 2, 2))  # four heads of queries and one of keys, two features each, over two ranks
    held = [[own.whole for own in cut.held(12, 2, rank)] for rank in (0, 1)]
    assert held == [[slice(0, 4), slice(8, 10), slice(10, 12)], [slice(4, 8), slice(8, 10), slice(10, 12)]]
    assert [own.local for own in cut.held(12, 2, 1)] == [slice(0, 4), slice(4, 6), slice(6, 8)]
    assert [own.first for own in cut.held(12, 2, 1)] == [True, False, False]
    assert cut.local_shape((12, 5), 2) == (8, 5)
    assert Cut(1, (6, 6)).local_shape((3, 12), 4) is None
    assert Cut(2).local_shape((3, 12), 4) is None
    assert Cut(once=True).held(5, 2, 1) == ()


SENT = ("a", "a(qk_rmsnorm=all)", "f", "f(post_act_ln)", "e(experts=4, inner=8)", "mamba(state=3)")
SENT += (
    "m(heads=4)",
    "m(heads=4, gated_norm=none)",
    "gdn(heads=4)",
    "kda(heads=4)",
    "gla(heads=4)",
    "rglru",
    "hgrn",
    "conv",
)


@pytest.mark.parametrize("block", SENT)
def test_what_ranks_send_is_what_a_split_says(monkeypatch: pytest.MonkeyPatch, block: str) -> None:
    graph = compiled(block)
    (split,) = tensor_splits(graph, 2).values()
    assert isinstance(split, Split)
    model, x = whole_model(graph), inputs_of(graph)["x"].requires_grad_()

    def sent(group: Any) -> tuple[int, int]:
        out = share(model, graph, group)(x)
        forward = group.sent
        torch.autograd.grad(out.sum(), x)
        return forward, group.sent - forward

    one_way = 2 * 7 * (graph.dim + split.sums)
    assert of_threads(monkeypatch, 2, sent)[0] == (one_way, one_way)


class Wide(nn.Module):
    """A hidden layer of a user's own."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(dim, width), nn.Linear(width, dim)
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(x).tanh() * self.gain)


WIDE = Kind(
    name="wide",
    title="wide layer",
    options=(Option("width", int, 8, "hidden features"),),
    shapes=lambda o: {
        "up.weight": (o.width, o.dim), "up.bias": (o.width,), "gain": (),
        "down.weight": (o.dim, o.width), "down.bias": (o.dim,),
    },
    flops=lambda o, sizes: 4 * sizes.batch * sizes.seq * o.dim * o.width,
    module=Wide,
    state=lambda o: {},
)  # fmt: skip


@pytest.fixture
def wide() -> Any:
    def register(split: Any) -> None:
        blockdsl.register(dataclasses.replace(WIDE, split=split))

    yield register
    blockdsl.unregister("wide")


def test_a_kind_of_ones_own(monkeypatch: pytest.MonkeyPatch, wide: Any) -> None:
    def split(o: Any, ranks: int) -> Split:
        by_feature = {"up.weight": Cut(), "up.bias": Cut(), "down.weight": Cut(axis=1)}
        return Split({"width": o.width // ranks}, by_feature, once=("down.bias",))

    wide(split)
    graph = compiled("a wide wide(width=12)")
    assert isinstance(tensor_splits(graph, 2)["wide1"], Split)
    held_against_the_whole(monkeypatch, graph, 2)


def test_a_kind_of_ones_own_that_says_nothing_is_whole(monkeypatch: pytest.MonkeyPatch, wide: Any) -> None:
    wide(None)
    graph = compiled("a wide f")
    assert tensor_splits(graph, 2)["wide1"] == "wide layer does not say how it splits"
    assert not any("wide1" in name for name in cuts(xt_blocks.lower(graph), graph, 2))
    held_against_the_whole(monkeypatch, graph, 2)


def test_a_split_that_contradicts_the_shapes_is_refused(wide: Any) -> None:
    wide(lambda o, ranks: Split({"width": o.width // ranks}, {"up.weight": Cut()}))
    wrong = (
        r"wide0: split leaves \(8,\) of 'up.bias' to each of 2 ranks, and with its options {'width': 4} it has \(4,\)"
    )
    with pytest.raises(UserError, match=wrong):
        tensor_part(compiled("wide"), 2)
    with pytest.raises(UserError, match=r"wide0: split cuts 'up.weight' of shape \(8, 16\) unevenly for 3 ranks"):
        tensor_part(compiled("wide"), 3)


def test_a_group_of_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = compiled("a f")
    model = xt_blocks.lower(tensor_part(graph, 4))
    with pytest.raises(UserError, match="a0: its heads=1 is not what one of 2 ranks has, 2: lower tensor_part"):
        of_threads(monkeypatch, 2, lambda group: tensor_parallel(model, graph, group))


def test_a_model_of_shares_is_copied_with_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = compiled("a f")
    whole, inputs = whole_model(graph), inputs_of(graph)
    expected = run_pass(whole, inputs).out
    for found in of_threads(monkeypatch, 2, lambda group: copy.deepcopy(share(whole, graph, group))(inputs["x"])):
        torch.testing.assert_close(found, expected)
