"""The short convolution `conv`, held to its formula token by token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from blockdsl import PatternError
from xt_blocks.blocks.conv import ShortConvolution

from .carried import check_flops, check_state, graph_of, stack_of


def by_hand(layer: ShortConvolution, x: Tensor) -> Tensor:
    """`x: (seq, dim)`: out(C * conv(B * x)), arXiv:2511.23404, equation by equation."""
    (w_before, w_after, w_values) = layer.to_in.weight.chunk(3)
    (b_before, b_after, b_values) = 3 * (0,) if layer.to_in.bias is None else layer.to_in.bias.chunk(3)
    taps, out = layer.conv.weight[:, 0], []
    gated = [(w_before @ token + b_before) * (w_values @ token + b_values) for token in x]
    for t, token in enumerate(x):
        mixed = sum(taps[:, -1 - k] * gated[t - k] for k in range(min(t + 1, taps.shape[1])))
        mixed = mixed if layer.conv.bias is None else mixed + layer.conv.bias
        out.append(layer.to_out((w_after @ token + b_after) * mixed))
    return torch.stack(out)


@pytest.mark.parametrize(("kernel", "bias"), [(3, False), (1, True), (5, True)])
def test_the_layer_by_hand(kernel: int, bias: bool) -> None:
    graph = graph_of("conv(norm=false)", conv_kernel=kernel, conv_bias=bias, final_norm=False)
    stack = stack_of(graph)
    layer, x = stack.blocks["conv0"].layer, torch.randn(2, 7, 16, dtype=torch.float64)
    assert isinstance(layer, ShortConvolution)
    ours, want = layer(x), torch.stack([by_hand(layer, row) for row in x])
    torch.testing.assert_close(ours, want)
    factors = torch.randn_like(ours)
    gradients = [torch.autograd.grad((out * factors).sum(), [*layer.parameters()]) for out in (ours, want)]
    torch.testing.assert_close(*gradients)


def test_every_way_of_running_it_is_the_same() -> None:
    check_state("conv(kernel=1) (conv(kernel=4, bias) & a) conv@x f conv@x/2")


def test_costs() -> None:
    graph = graph_of("conv(kernel=4, bias)", dim=32)
    # two linear layers and a convolution, with biases, and a norm before it and at the end
    assert graph.parameters() == 4 * 32 * 32 + 4 * 32 + 4 * 32 + 32 + 2 * 2 * 32
    assert graph.kv_cache_bytes(1000, batch=2) == 2 * 2 * 3 * 32 * 4
    check_flops(graph)


def test_it_runs_in_causal_stacks_alone() -> None:
    with pytest.raises(PatternError, match=r"'conv' \(short convolution\) in a stack that is not causal"):
        graph_of("a conv", causal=False)
