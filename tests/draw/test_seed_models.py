"""The models of the seed document are drawn: the pattern and the settings that the keyword API makes of each."""

from __future__ import annotations

from typing import Any

import pytest

import blockdsl
from blockdsl import BlockGraph
from blockdsl.draw import side_by_side
from blockdsl.language.ordering import pattern_of

from .reading import check

TOKENS = {"num_tokens": 64, "max_seq_len": 16}
DECODER = {"dim": 32, "heads": 8, "causal": True}
ENCODER = {"dim": 32, "heads": 8}

# Arguments of the order, and settings.
MODELS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"depth": 12}, DECODER | TOKENS),
    ({"depth": 96}, {"dim": 12288, "heads": 96, "attn_dim_head": 128, "causal": True} | TOKENS),
    ({"depth": 12}, ENCODER | TOKENS),
    ({"depth": 6}, ENCODER),
    ({"depth": 6, "cross_attend": True}, DECODER | TOKENS),
    ({"depth": 6}, DECODER | TOKENS | {"layer_dropout": 0.1, "attn_dropout": 0.1, "ff_dropout": 0.1}),
    ({"depth": 6}, ENCODER | {"attn_num_mem_kv": 16}),
    ({"depth": 6}, ENCODER | TOKENS | {"num_memory_tokens": 20}),
    ({"depth": 6}, DECODER | TOKENS | {"use_scalenorm": True}),
    ({"depth": 6}, DECODER | TOKENS | {"l2norm_embed": True}),
    ({"depth": 6}, DECODER | TOKENS | {"post_emb_norm": True}),
    ({"depth": 6}, DECODER | TOKENS | {"use_rmsnorm": True}),
    ({"depth": 6}, DECODER | TOKENS | {"ff_swish": True, "ff_glu": True}),
    ({"depth": 6}, DECODER | TOKENS | {"ff_no_bias": True}),
    ({"depth": 6}, DECODER | TOKENS | {"ff_relu_squared": True}),
    ({"depth": 6}, DECODER | TOKENS | {"attn_sparse_topk": 8}),
    ({"depth": 6}, DECODER | TOKENS | {"attn_talking_heads": True}),
    ({"depth": 6}, DECODER | TOKENS | {"attn_one_kv_head": True}),
    ({"depth": 6}, ENCODER | TOKENS | {"attn_on_attn": True}),
    ({"depth": 6}, ENCODER | TOKENS | {"attn_gate_values": True}),
    ({"depth": 6, "sandwich_coef": 6}, ENCODER | TOKENS),
    ({"depth": 6, "macaron": True}, ENCODER | TOKENS),
    ({"depth": 6}, DECODER | TOKENS | {"rel_pos_bias": True}),
    ({"depth": 6}, ENCODER | TOKENS | {"pre_norm": False, "residual_attn": True}),
    ({"depth": 6, "cross_attend": True}, DECODER | TOKENS | {"cross_residual_attn": True}),
    ({"depth": 6}, DECODER | TOKENS | {"deepnorm": True}),
    ({"depth": 6}, DECODER | TOKENS | {"rel_pos_bias": True, "max_mem_len": 24}),
    ({"depth": 6}, DECODER | TOKENS | {"rotary_pos_emb": True, "max_mem_len": 24, "shift_mem_down": 1}),
    ({"depth": 6}, DECODER | TOKENS | {"gate_residual": True, "heads": 16}),
    ({"depth": 6}, DECODER | TOKENS | {"rotary_xpos": True}),
    ({"depth": 6}, DECODER | TOKENS | {"dynamic_pos_bias": True}),
    ({"depth": 6}, DECODER | TOKENS | {"alibi_pos_bias": True, "alibi_num_heads": 4}),
    ({"depth": 6}, DECODER | TOKENS | {"shift_tokens": 1}),
    ({"depth": 6, "shift_tokens": (1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0)}, DECODER | TOKENS),
    ({"depth": 6}, DECODER | TOKENS | {"sandwich_norm": True}),
    ({"depth": 6}, DECODER | TOKENS | {"attn_head_scale": True}),
    ({"depth": 6}, DECODER | TOKENS | {"ff_post_act_ln": True}),
    ({"depth": 6}, DECODER | TOKENS | {"scale_residual": True}),
    ({"depth": 6}, DECODER | TOKENS | {"attn_qk_norm": True, "attn_qk_norm_groups": 4}),
    ({"depth": 6}, DECODER | TOKENS | {"use_abs_pos_emb": False}),
    ({"depth": 6, "cross_attend": True, "only_cross": True}, ENCODER),
    ({"depth": 6, "par_ratio": 4}, DECODER | TOKENS),
    ({"custom_layers": ["a", "f", "f", "c", "a"]}, DECODER | TOKENS),
]


def graph(order: dict[str, Any], settings: dict[str, Any]) -> BlockGraph:
    return blockdsl.compile(pattern_of(**order), **settings)


@pytest.mark.parametrize(("order", "settings"), MODELS)
@pytest.mark.parametrize("detail", ["block", "op"])
@pytest.mark.parametrize("unfold", [False, True])
def test_a_model_of_the_document(order: dict[str, Any], settings: dict[str, Any], detail: str, unfold: bool) -> None:
    g = graph(order, settings)
    if len(g.nodes("block")) > 100 and unfold:
        return
    check(g.to_svg(detail=detail, unfold=unfold), g, unfolded=unfold)


@pytest.mark.parametrize("detail", ["block", "op"])
@pytest.mark.parametrize("unfold", [False, True])
def test_an_encoder_and_a_decoder(detail: str, unfold: bool) -> None:
    encoder = graph({"depth": 6}, ENCODER | TOKENS | {"return_only_embed": True})
    decoder = graph({"depth": 6, "cross_attend": True}, DECODER | TOKENS | {"rotary_pos_emb": True})
    svg = side_by_side({"encoder": encoder, "decoder": decoder}, detail=detail, unfold=unfold)
    check(svg, encoder, decoder, names=("encoder", "decoder"))
