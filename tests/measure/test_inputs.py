"""Random inputs of a call: their shapes by hand, for each kind of model, and what sizes do to them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import blockdsl
from blockdsl import UserError
from xt_blocks import DualEncoder, lower
from xt_blocks.measure import example_call

SIZES: dict[str, Any] = {"dim": 8, "heads": 1, "attn_dim_head": 8}
TOKENS: dict[str, Any] = {"num_tokens": 20, "max_seq_len": 8}
IMAGES: dict[str, Any] = {"image_size": (8, 16), "patch_size": 4, "channels": 2, "num_classes": 3}


def made(pattern: str, settings: dict[str, Any]) -> Any:
    return lower(blockdsl.compile(pattern, **SIZES, **settings))


@pytest.mark.parametrize(
    ("pattern", "settings", "called", "shapes"),
    [
        ("a f", TOKENS | {"causal": True}, "AutoregressiveWrapper", [(2, 5)]),
        ("a f", TOKENS, "TransformerWrapper", [(2, 4)]),
        ("a f", TOKENS | {"causal": True, "pool": "last"}, "TransformerWrapper", [(2, 4)]),
        ("a f", TOKENS | {"causal": True, "logits_dim": 5}, "TransformerWrapper", [(2, 4)]),
        ("a f", TOKENS | {"causal": True, "return_only_embed": True}, "TransformerWrapper", [(2, 4)]),
        ("a f", {"dim_in": 3, "dim_out": 5, "max_seq_len": 8}, "ContinuousTransformerWrapper", [(2, 4, 3)]),
        ("a f", IMAGES, "ViTransformerWrapper", [(2, 2, 8, 16)]),
        ("a f", {}, "Stack", [(2, 4, 8)]),
        ("a f => a c f", {}, "EncoderDecoder", [(2, 3, 8), (2, 4, 8)]),
        ("a f => a c f", TOKENS, "XTransformer", [(2, 3), (2, 5)]),
    ],
)
def test_shapes_by_hand(pattern: str, settings: dict[str, Any], called: str, shapes: list[tuple[int, ...]]) -> None:
    call = example_call(made(pattern, settings), batch=2, seq_len=4, context_len=3)
    assert type(call.module).__name__ == called
    assert [tuple(x.shape) for x in call.args] == shapes
    assert call.kwargs == {}
    assert (call.batch, call.seq_len, call.context_len) == (2, 8 if called.startswith("ViT") else 4, 3)
    assert call.loss().ndim == 0
    floats = [x for x in call.args if x.is_floating_point()]
    assert all(x.requires_grad for x in floats) is (called != "ViTransformerWrapper")  # pixels are no layer's output


@pytest.mark.parametrize(("given", "length"), [(3, 3), (None, 4)])
def test_what_is_beside_the_stream(given: int | None, length: int) -> None:
    model = made("a c f", {"cross_attn_dim_context": 6, "dim_condition": 5, "use_adaptive_layernorm": True})
    call = example_call(model, batch=2, seq_len=4, context_len=given)
    assert {name: tuple(x.shape) for name, x in call.kwargs.items()} == {"context": (2, length, 6), "condition": (2, 5)}
    assert call.context_len == length


def test_lengths_that_are_not_given() -> None:
    assert example_call(made("a f", TOKENS)).args[0].shape == (8, 8)
    assert example_call(made("a f", {})).args[0].shape == (8, 256, 8)
    source, target = example_call(made("a f => a c f", TOKENS), 1, seq_len=5).args
    assert (source.shape, target.shape) == ((1, 5), (1, 6))


def test_the_seed_draws_them_and_they_are_on_the_models_device() -> None:
    model = made("a f", {})
    first, again, other = (example_call(model, 2, 4, seed=seed).args[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert example_call(model.to("meta"), 2, 4).args[0].is_meta


def test_sizes_out_of_range_and_models_of_one_s_own() -> None:
    pair = made("a f => a c f", {"num_tokens": 20, "enc_max_seq_len": 6, "dec_max_seq_len": 8})
    with pytest.raises(UserError, match="context_len=7 is more than max_seq_len=6"):
        example_call(pair, seq_len=4, context_len=7)
    with pytest.raises(UserError, match="seq_len=9 is more than max_seq_len=8"):
        example_call(pair, seq_len=9)
    with pytest.raises(UserError, match="context_len must be a whole number of at least 1, not 0"):
        example_call(made("a c", {}), seq_len=4, context_len=0)
    image = made("a f", IMAGES | {"num_classes": None, "pool": "mean"})
    text = made("a f", TOKENS | {"pool": "mean", "logits_dim": 8})
    with pytest.raises(UserError, match="the model has the stacks image, text: call profile with what it reads"):
        example_call(DualEncoder(image, text))
