"""The short convolution `conv`, held to its formula token by token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import blockdsl
from blockdsl import PatternError
from xt_blocks.blocks.conv import ShortConvolution

from .stateful import SEQ, counted, hold, model


def by_hand(layer: ShortConvolution, x: Tensor) -> Tensor:
    """`x: (seq, dim)`: out(C * conv(B * x)), arXiv:2511.23404, token by token."""
    w_before, w_after, w_values = layer.to_in.weight.chunk(3)
    b_before, b_after, b_values = 3 * (0,) if layer.to_in.bias is None else layer.to_in.bias.chunk(3)
    taps, out = layer.conv.weight[:, 0], []
    gated = [(w_before @ token + b_before) * (w_values @ token + b_values) for token in x]
    for t, token in enumerate(x):
        mixed = sum(taps[:, -1 - k] * gated[t - k] for k in range(min(t + 1, taps.shape[1])))
        mixed = mixed if layer.conv.bias is None else mixed + layer.conv.bias
        out.append(layer.to_out((w_after @ token + b_after) * mixed))
    return torch.stack(out)


@pytest.mark.parametrize("options", ["kernel=3", "kernel=1, bias", "kernel=5, bias, inner=10", "inner=24"])
def test_the_layer_by_hand(options: str) -> None:
    layer = model(f"conv({options})").attn_layers.blocks["conv0"].layer
    assert isinstance(layer, ShortConvolution)
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    ours, want = layer(x), torch.stack([by_hand(layer, row) for row in x])
    torch.testing.assert_close(ours, want)
    factors = torch.randn_like(ours)
    gradients = [torch.autograd.grad((out * factors).sum(), [*layer.parameters()]) for out in (ours, want)]
    torch.testing.assert_close(*gradients)


def test_every_way_of_running_it_is_the_same() -> None:
    hold("conv(kernel=1) (conv(kernel=4, bias, inner=6) & a) conv@x f conv@x/2")


def test_costs() -> None:
    graph = blockdsl.compile("conv(kernel=4, bias)", dim=32, causal=True)
    # two linear layers and a convolution, with biases, and a norm before it and at the end
    assert graph.parameters() == 4 * 32 * 32 + 4 * 32 + 4 * 32 + 32 + 2 * 2 * 32
    assert graph.kv_cache_bytes(1000, batch=2) == 2 * 2 * 3 * 32 * 4
    narrow = blockdsl.compile("conv(kernel=4, bias, inner=8)", dim=32, causal=True)
    assert narrow.parameters() == 4 * 32 * 8 + 4 * 8 + 4 * 8 + 32 + 2 * 2 * 32
    assert narrow.kv_cache_bytes(1000, batch=2) == 2 * 2 * 3 * 8 * 4
    for text in ("conv(kernel=4)", "conv(kernel=4, inner=20)"):
        said, found = counted(text, SEQ)
        assert abs(said - found) <= 0.02 * found


def test_it_runs_in_causal_stacks_alone() -> None:
    with pytest.raises(PatternError, match=r"'conv' \(short convolution\) in a stack that is not causal"):
        blockdsl.compile("a conv", dim=16, heads=2)
