"""Griffin's recurrent block `rglru`, held to the paper's recurrence token by token."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import blockdsl
from blockdsl import UserError
from xt_blocks.blocks.rglru import RecurrentBlock
from xt_blocks.kernels.scans.linear import linear_scan

from .stateful import SEQ, counted, hold, model


def by_hand(layer: RecurrentBlock, x: Tensor) -> Tensor:
    """`x: (seq, dim)`: arXiv:2402.19427, equations 1 to 4, token by token."""
    width = layer.width
    values, gates = x @ layer.to_in.weight[:width].T, x @ layer.to_in.weight[width:].T
    values, gates = values + layer.to_in.bias[:width], gates + layer.to_in.bias[width:]
    taps, out, h = layer.conv.weight[:, 0], [], torch.zeros(width, dtype=x.dtype)
    assert layer.conv.bias is not None
    for t in range(len(x)):
        mixed = layer.conv.bias + sum(taps[:, -1 - k] * values[t - k] for k in range(min(t + 1, taps.shape[1])))
        i, r = (
            torch.sigmoid(torch.block_diag(*gate.weight).T @ mixed + gate.bias.flatten())
            for gate in (layer.input_gate, layer.recurrence_gate)
        )
        a = torch.exp(-8 * r * torch.log1p(torch.exp(layer.decay)))
        h = a * h + (torch.sqrt(1 - a**2) if t else 1) * i * mixed
        out.append(layer.to_out(h * F.gelu(gates[t], approximate="tanh")))
    return torch.stack(out)


@pytest.mark.parametrize("options", ["heads=2", "heads=3, width=12, kernel=1"])
def test_the_layer_by_hand(options: str) -> None:
    layer = model(f"rglru({options})").attn_layers.blocks["rglru0"].layer
    assert isinstance(layer, RecurrentBlock)
    x = torch.randn(2, SEQ, 16, dtype=torch.float64)
    ours, want = layer(x), torch.stack([by_hand(layer, row) for row in x])
    torch.testing.assert_close(ours, want)
    factors = torch.randn_like(ours)
    gradients = [torch.autograd.grad((out * factors).sum(), [*layer.parameters()]) for out in (ours, want)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("seq", [1, 2, 5, 10])
def test_the_scan_and_its_gradients_of_both_orders(seq: int) -> None:
    torch.manual_seed(0)
    a, b = (torch.rand(2, seq, 3, dtype=torch.float64) for _ in range(2))
    a[:, seq // 2] = 0.0  # nothing is left of what came before
    given = [t.requires_grad_() for t in (a, b, torch.randn(2, 3, dtype=torch.float64))]

    def step_by_step(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
        out = []
        for t in range(seq):
            h = a[:, t] * h + b[:, t]
            out.append(h)
        return torch.stack(out, dim=1)

    torch.testing.assert_close(linear_scan(*given), step_by_step(*given))
    assert torch.autograd.gradcheck(linear_scan, given)
    assert torch.autograd.gradgradcheck(linear_scan, given)


def test_every_way_of_running_it_is_the_same() -> None:
    hold("rglru(width=24)@x (rglru(kernel=1) & a) f rglru(width=24)@x/2", rglru_heads=4)


def test_a_decay_of_nothing_has_a_finite_gradient() -> None:
    layer = model("rglru(heads=2)").attn_layers.blocks["rglru0"].layer.float()
    assert isinstance(layer, RecurrentBlock)
    with torch.no_grad():
        layer.decay.fill_(-200.0)  # a = 1
    layer(torch.randn(2, SEQ, 16), mask=torch.arange(SEQ).expand(2, SEQ) > 3).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)


def test_decays_that_start_in_few_bits_are_below_one() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        layer = RecurrentBlock(8, None, 2, 3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert layer.decay.isfinite().all()


def test_costs() -> None:
    graph = blockdsl.compile("rglru(width=64, heads=4)", dim=32, causal=True)
    # 2 + 1 linear layers, the convolution, two gates of 4 blocks, the decays; a norm before it and at the end
    assert graph.parameters() == (3 * 32 * 64 + 2 * 64 + 32) + 5 * 64 + 2 * (4 * 16 * 16 + 64) + 64 + 2 * 2 * 32
    assert graph.kv_cache_bytes(1000, batch=2, dtype="bfloat16") == 2 * 2 * ((3 * 64 + 1) * 2 + 64 * 4)
    said, found = counted("rglru(heads=2)", SEQ)
    assert abs(said - found) <= 0.02 * found
    with pytest.raises(UserError, match="a width of 32 is not divisible by heads=5, the blocks of the gates' matrices"):
        blockdsl.compile("rglru(heads=5)", dim=32, causal=True)
