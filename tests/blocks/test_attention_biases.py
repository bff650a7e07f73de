"""Biases of attention's linear layers and the factor of its scores, against a loop over heads in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import blockdsl
from xt_blocks import Attention, CrossAttention, Decoder, lower, pack

DIM, HEADS, KV_HEADS, D = 12, 4, 2, 3

OPTIONS: list[dict[str, Any]] = [
    {"qkv_bias": True},
    {"out_bias": True},
    {"qkv_bias": True, "out_bias": True, "qk_scale": 1},
    {"qkv_bias": True, "k_bias": False, "out_bias": True},
    {"qk_scale": 0.3},
]


def drawn(kind: Any, **options: Any) -> Any:
    layer = kind(dim=DIM, heads=HEADS, kv_heads=KV_HEADS, dim_head=D, **options).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


def rows_of(layer: Any, name: str) -> tuple[Tensor, Tensor | int]:
    """The weight and the bias of to_q, to_k or to_v, out of the state dict."""
    part = {"to_q": 0, "to_k": 1, "to_v": 2}[name]
    state = layer.state_dict()
    sizes = [HEADS * D, KV_HEADS * D, KV_HEADS * D]
    if isinstance(layer, CrossAttention):
        if part == 0:
            return state["to_q.weight"], state.get("to_q.bias", 0)
        joint, sizes, part = "to_kv", sizes[1:], part - 1
    else:
        joint = "to_qkv"
    if f"{joint}.weight" not in state:
        return state[f"{joint}.parts.{part}.weight"], state.get(f"{joint}.parts.{part}.bias", 0)
    bias = state.get(f"{joint}.bias")
    return state[f"{joint}.weight"].split(sizes)[part], 0 if bias is None else bias.split(sizes)[part]


def by_hand(layer: Any, x: Tensor, source: Tensor, scale: float, causal: bool) -> Tensor:
    def made(name: str, of: Tensor) -> Tensor:
        weight, bias = rows_of(layer, name)
        return of @ weight.T + bias

    q, k, v = made("to_q", x), made("to_k", source), made("to_v", source)
    outs = []
    for head in range(HEADS):
        own, shared = slice(head * D, head * D + D), slice(head // 2 * D, head // 2 * D + D)
        scores = q[..., own] @ k[..., shared].transpose(1, 2) * scale
        if causal:
            scores = scores.masked_fill(torch.ones(scores.shape[1:], dtype=torch.bool).triu(1), -torch.inf)
        outs.append(scores.softmax(-1) @ v[..., shared])
    state = layer.state_dict()
    return torch.cat(outs, -1) @ state["output.to_out.weight"].T + state.get("output.to_out.bias", 0)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ", ".join(options))
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("flash", [False, True])
def test_self_attention(options: dict[str, Any], causal: bool, flash: bool) -> None:
    layer, x = drawn(Attention, causal=causal, flash=flash, **options), torch.randn(2, 7, DIM, dtype=torch.float64)
    expected = by_hand(layer, x, x, options.get("qk_scale", D**-0.5), causal)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ", ".join(options))
def test_cross_attention(options: dict[str, Any]) -> None:
    layer = drawn(CrossAttention, **options)
    x, context = torch.randn(2, 7, DIM, dtype=torch.float64), torch.randn(2, 5, DIM, dtype=torch.float64)
    expected = by_hand(layer, x, context, options.get("qk_scale", D**-0.5), False)
    torch.testing.assert_close(layer(x, context=context), expected)


@pytest.mark.parametrize("kind", [Attention, CrossAttention])
def test_keys_without_a_bias_are_a_layer_of_their_own(kind: Any) -> None:
    layer = drawn(kind, qkv_bias=True, k_bias=False)
    assert [getattr(layer, name).bias is not None for name in ("to_q", "to_k", "to_v")] == [True, False, True]
    assert all(type(part) is nn.Linear for part in (layer.to_k, layer.to_v))


def test_biases_start_at_zero_with_xavier_weights() -> None:
    for attention in ("a", "a(k_bias=false)", "c", "c(k_bias=false)"):
        model = Decoder(pattern=attention, dim=12, heads=2, attn_qkv_bias=True, attn_out_bias=True, init_gain=0.5)
        biases = [value for name, value in model.named_parameters() if name.endswith("bias") and ".layer." in name]
        assert biases
        assert not any(bias.any() for bias in biases)


def test_a_branch_that_starts_at_zero_has_no_bias_at_first() -> None:
    layer = Attention(dim=12, heads=2, out_bias=True, zero_init_branch_output=True)
    assert not layer(torch.randn(1, 3, 12)).any()


def test_a_packed_layer_adds_its_biases_to_keys_of_memory_too() -> None:
    layer = Attention(dim=24, heads=2, dim_head=8, qkv_bias=True, out_bias=True)
    x, memory = torch.randn(2, 5, 24), torch.randn(2, 3, 24)
    with torch.no_grad():
        plain, with_memory = layer(x), layer(x, memory=memory)
        pack(layer)
        torch.testing.assert_close(layer(x), plain, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(layer(x, memory=memory), with_memory, rtol=1e-5, atol=1e-5)
        both = layer(torch.cat((memory, x), dim=1))[:, 3:]
    torch.testing.assert_close(with_memory, both, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", ["a", "a(k_bias=false)", "c", "c(k_bias=false)"])
def test_every_linear_layer_is_called(text: str) -> None:
    """Hooks, and what replaces a layer by its type, find each."""
    graph = blockdsl.compile(text, dim=12, heads=2, attn_qkv_bias=True, attn_out_bias=True)
    model, called = lower(graph), set()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *_, name=name: called.add(name))
    model(torch.randn(1, 3, 12), **({"context": torch.randn(1, 2, 12)} if "c" in text[0] else {}))
    assert called == {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k_bias": False}, "k_bias is false, but it needs qkv_bias"),
        ({"qkv_bias": True, "k_bias": False, "shared_kv": True}, "k_bias is false, but shared_kv makes values of keys"),
        ({"qk_scale": 2, "qk_norm": True}, "qk_scale=2 is set, but qk_norm multiplies its scores by qk_norm_scale"),
    ],
)
def test_what_clashes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Attention(dim=12, heads=2, **options)
