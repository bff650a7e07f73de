"""The keyword API: what it builds, and what it says to a wrong or clashing argument."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import blockdsl
from blockdsl import UserError
from blockdsl.reference import needs, telling
from blockdsl.registry.settings import table
from xt_blocks import (
    Attention,
    AttentionLayers,
    AutoregressiveWrapper,
    CrossAttender,
    CrossAttention,
    Decoder,
    Encoder,
    FeedForward,
    TransformerWrapper,
)


def text(**kwargs: Any) -> str:
    return AttentionLayers(dim=16, heads=2, attn_dim_head=8, **kwargs).pattern


def test_keywords_are_written_as_the_pattern_they_are() -> None:
    assert text(depth=6) == "(a f)*6"
    assert text(depth=6, cross_attend=True) == "(a c f)*6"
    assert text(depth=6, cross_attend=True, only_cross=True) == "(c f)*6"
    assert text(depth=6, macaron=True) == "(f/2 a f/2)*6"
    assert text(depth=6, sandwich_coef=2) == "sandwich(2, 6)"
    assert text(depth=6, par_ratio=4) == "par(6, 4)"
    assert text(custom_layers=["a", "f", "f", "a", "f"]) == "a f f a f"  # no longer than with f*2
    assert text(depth=2, shift_tokens=(1, 1, 1, 0)) == "a>>1 f>>1 a>>1 f>>0"
    assert text(depth=2, macaron=True, shift_tokens=(1,) * 6) == "(f>>1/2 a>>1 f>>1/2)*2"
    assert text(depth=1, layer_dropout=(0.0, 0.1)) == "a(layer_dropout=0) f(layer_dropout=0.1)"


def test_heads_are_64_wide_unless_said_otherwise() -> None:
    assert Decoder(dim=32, depth=1, heads=2).graph.nx.nodes["a0"]["options"]["dim_head"] == 64
    assert Decoder(dim=32, depth=1, heads=2, attn_dim_head=None).graph.nx.nodes["a0"]["options"]["dim_head"] == 16


def test_classes_fix_what_they_are() -> None:
    assert Decoder(dim=16, depth=1).graph.causal
    assert not Encoder(dim=16, depth=1).graph.causal
    assert CrossAttender(dim=16, depth=2).pattern == "(c f)*2"
    assert Decoder(pattern="set dim=16; a f").dim == 16
    assert Decoder(dim=32, pattern="set dim=16; a f").dim == 32  # a keyword wins over the text


def test_a_pattern_object_or_text_may_be_given() -> None:
    pattern = blockdsl.parse("enc: a f | a*2")
    assert Encoder(dim=16, pattern=pattern).graph == Encoder(dim=16, pattern=str(pattern)).graph


WRONG: list[tuple[type, dict[str, Any], type[Exception], str]] = [
    (
        Decoder,
        {"dim": 16, "depth": 1, "atn_dropout": 0.1},
        TypeError,
        "Decoder() got an unknown argument 'atn_dropout'; did you mean 'attn_dropout'?",
    ),
    (
        Decoder,
        {"dim": 16, "depth": 1, "head": 2},
        TypeError,
        "Decoder() got an unknown argument 'head'; did you mean 'heads'?",
    ),
    (Decoder, {"dim": 16, "depht": 1}, TypeError, "Decoder() got an unknown argument 'depht'; did you mean 'depth'?"),
    (
        Decoder,
        {"dim": 16, "depth": 1, "num_tokens": 2},
        TypeError,
        "Decoder() got 'num_tokens', which belongs to TransformerWrapper",
    ),
    (
        Decoder,
        {"dim": 16, "depth": 1, "causal": False},
        TypeError,
        "Decoder() takes no causal=: a decoder is causal; use Encoder for one that is not",
    ),
    (
        Encoder,
        {"dim": 16, "depth": 1, "causal": True},
        TypeError,
        "Encoder() takes no causal=: an encoder is not causal; use Decoder",
    ),
    (
        CrossAttender,
        {"dim": 16, "depth": 1, "cross_attend": True},
        TypeError,
        "CrossAttender() takes no cross_attend=: a cross-attender attends to its context only",
    ),
    (
        CrossAttender,
        {"dim": 16, "pattern": "a f"},
        TypeError,
        "CrossAttender's pattern has no 'c' to attend to the context with",
    ),
    (
        Decoder,
        {"dim": 16, "depth": 6, "pattern": "a f"},
        TypeError,
        "pattern= and depth= are both given; the pattern has the order",
    ),
    (
        Decoder,
        {"dim": 16, "macaron": True, "sandwich_coef": 1, "pattern": "a"},
        TypeError,
        "pattern= and macaron=, sandwich_coef= are both given; the pattern has the order",
    ),
    (Decoder, {"dim": 16}, TypeError, "give depth=, or the whole order as pattern="),
    (
        Decoder,
        {"dim": 16, "depth": 6, "sandwich_coef": 2, "par_ratio": 3},
        TypeError,
        "par_ratio and sandwich_coef each decide the order of the blocks; give one",
    ),
    (
        Decoder,
        {"dim": 16, "depth": 6, "sandwich_coef": 7},
        ValueError,
        "sandwich_coef must be from 1 to the depth, 6, not 7",
    ),
    (Decoder, {"dim": 16, "depth": 0}, ValueError, "depth must be a whole number of at least 1, not 0"),
    (Decoder, {"dim": 16, "depth": 1, "only_cross": True}, TypeError, "only_cross needs cross_attend=True"),
    (Decoder, {"dim": 16, "depth": 2, "shift_tokens": (1, 1, 1)}, ValueError, "shift_tokens has 3 values for 4 blocks"),
    (
        Decoder,
        {"dim": 16, "depth": 2, "ff_swish": True, "ff_relu_squared": True},
        ValueError,
        "swish and relu_squared are both set; a feedforward has one activation",
    ),
    (Decoder, {"dim": 16, "depth": 2, "heads": 0}, ValueError, "heads must be a whole number of at least 1, not 0"),
    (
        Decoder,
        {"dim": 16, "depth": 2, "heads": 3, "attn_dim_head": None},
        ValueError,
        "heads=3 does not divide dim=16, which dim_head=none asks for",
    ),
    (Decoder, {"dim": 16, "depth": 2, "ff_glu": 1}, ValueError, "ff_glu must be true or false, not 1"),
    (Decoder, {"depth": 2}, ValueError, "a stack needs dim: give dim=512, or write set dim=512; in the pattern"),
    (
        CrossAttender,
        {"dim": 16, "depth": 2, "rotary_pos_emb": True},
        ValueError,
        "rotary_pos_emb is set, but no block of the pattern uses rotary positions",
    ),
    (
        CrossAttender,
        {"dim": 16, "depth": 2, "attn_max_attend_past": 4},
        ValueError,
        "attn_max_attend_past is set, but no block of the stack reads it: self-attention ('a') would",
    ),
    (
        Decoder,
        {"dim": 16, "depth": 2, "rotary_emb_dim": 8},
        ValueError,
        "rotary_emb_dim is set, but it needs rotary_pos_emb",
    ),
]


@pytest.mark.parametrize(("build", "kwargs", "error", "message"), WRONG, ids=[row[3][:50] for row in WRONG])
def test_a_wrong_argument_is_named(build: Any, kwargs: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        build(**kwargs)
    assert str(raised.value) == message


def test_a_cross_attender_reads_its_context_as_in_the_seed_document() -> None:
    encoder, model = Encoder(dim=32, depth=2), CrossAttender(dim=32, depth=2)
    nodes, neighbours = torch.randn(1, 1, 32), torch.randn(1, 5, 32)
    node_mask, neighbour_mask = torch.ones(1, 1).bool(), torch.ones(1, 5).bool()
    encoded = encoder(neighbours, mask=neighbour_mask)
    assert model(nodes, context=encoded, mask=node_mask, context_mask=neighbour_mask).shape == (1, 1, 32)


@pytest.mark.parametrize(
    ("build", "kwargs", "message"),
    [
        (
            TransformerWrapper,
            {"num_token": 4},
            "TransformerWrapper() got an unknown argument 'num_token'; did you mean 'num_tokens'?",
        ),
        (
            TransformerWrapper,
            {"ff_glu": True},
            "TransformerWrapper() got an unknown argument 'ff_glu'; it is a setting of the stack: give it to attn_layers=Decoder(...)",
        ),
        (
            AutoregressiveWrapper,
            {"pad_val": 4},
            "AutoregressiveWrapper() got an unknown argument 'pad_val'; did you mean 'pad_value'?",
        ),
        (Attention, {"dim": 4, "head": 4}, "Attention() got an unknown argument 'head'; did you mean 'heads'?"),
        (CrossAttention, {"dim": 4, "causal": True}, "CrossAttention() got an unknown argument 'causal'"),
        (
            FeedForward,
            {"dim": 4, "nobias": True},
            "FeedForward() got an unknown argument 'nobias'; did you mean 'no_bias'?",
        ),
    ],
    ids=str,
)
def test_every_public_class_names_the_nearest_argument(build: Any, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as raised:
        build(**kwargs)
    assert str(raised.value) == message


# Settings that nothing reads ---------------------------------------------------------------------------------------


LATENT = ("attn_kv_rank", "attn_q_rank", "attn_shared_key_dim")


def readers(setting: str) -> str:
    """The built-in kinds that a setting is about, as its name says it; empty: all of them, or none in particular."""
    alone = (
        "residual_attn",
        "attn_max_attend_past",
        "attn_max_attend_future",
        "attn_forget_gate",
        "attn_lora_rank",
        "attn_value_embed",
    )
    if setting in (*alone, *LATENT):
        return "a"
    of = {"cross_": "c", "ff_": "f", "attn_": "ac"}
    return next((kinds for prefix, kinds in of.items() if setting.startswith(prefix)), "")


OF_SOME = [name for name in table() if readers(name) and name not in ("attn_dim_head", "ff_mult")]


def test_settings_of_each_kind_are_among_them() -> None:
    assert {"cross_residual_attn", "cross_attn_tokens_dropout", "residual_attn", "ff_glu", "attn_flash"} < {*OF_SOME}


@pytest.mark.parametrize("kind", "acf")
@pytest.mark.parametrize("name", OF_SOME)
def test_a_setting_that_no_block_reads_is_refused_or_warned_of(name: str, kind: str) -> None:
    option = table()[name]
    value, stack = telling(option), {"dim": 16, "heads": 8, "custom_layers": [kind]}
    layers = Encoder if name == "attn_max_attend_future" else Decoder  # a causal block has no later tokens
    layers(**stack, **{name: option.default})
    needed = {other: value for other, value in needs(name, option.area).items() if other != "causal"}
    if kind in readers(name):
        layers(**stack, **needed, **{name: value})
        return
    said = f"{name} is set, but no block of the stack reads it: "
    with pytest.raises(UserError, match=said) as caught:
        layers(**stack, **{name: value})
    assert all(f"('{reader}')" in str(caught.value) for reader in readers(name))
    with pytest.warns(UserWarning, match=said):
        layers(dim=16, heads=8, pattern=kind, **{name: value})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_reader = [kind, readers(name)[0]]
        layers(dim=16, heads=8, custom_layers=with_reader, **needed, **{name: value})


def test_the_default_block_reads_what_it_reads() -> None:
    for name in ("cross_residual_attn", "cross_attn_tokens_dropout"):
        value = telling(table()[name])
        with pytest.raises(UserError, match=rf"{name} is set, but .*: cross-attention \('c'\) would"):
            Encoder(dim=16, depth=1, **{name: value})
        assert Decoder(dim=16, depth=1, cross_attend=True, **{name: value}).pattern == "a c f"
    with pytest.raises(UserError, match="residual_attn is set, but no block"):
        CrossAttender(dim=16, depth=1, residual_attn=True)


def test_sizes_may_be_said_of_any_stack() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Decoder(dim=16, custom_layers=["f"], heads=2, attn_dim_head=4)
        Decoder(dim=16, pattern="a", ff_mult=2)


def test_the_gate_is_scaled_before_its_activation() -> None:
    layer, x = FeedForward(3, inner=2, glu=True, swish=True, gate_scale=0.5, no_bias=True), torch.randn(1, 2, 3)
    hidden, gate = (x @ layer.to_hidden.weight.T).split(2, dim=-1)
    want = (hidden * (gate / 2) * torch.sigmoid(gate / 2)) @ layer.to_out.weight.T
    torch.testing.assert_close(layer(x), want)
    with pytest.raises(ValueError, match="gate_scale is set, but it needs glu"):
        FeedForward(3, gate_scale=0.5)
