"""Kimi delta attention against the paper's formulas, token by token, and in every way of running it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xt_blocks.blocks.kda import KimiDeltaAttention

from .stateful import SEQ, counted, hold

SMALL = {"kda_heads": 2, "kda_dim_head": 4}


def by_hand(layer: KimiDeltaAttention, x: Tensor, d: int) -> Tensor:
    """Equation 1 of arXiv:2510.26692 with the gates of its section 4, each head and token by itself."""
    kernel, mixed = layer.conv.weight.shape[-1], x @ layer.to_qkv.weight.T
    before = F.pad(mixed, (0, 0, kernel - 1, 0))
    mixed = F.silu(sum(before[:, j : j + x.shape[1]] * layer.conv.weight[:, 0, j] for j in range(kernel)))
    q, k, v = mixed.chunk(3, -1)
    low_decay, low_gate = (x @ layer.to_low_rank.weight.T).split(d, -1)
    decay, gate = low_decay @ layer.to_decay.weight.T + layer.dt_bias, low_gate @ layer.to_gate.weight.T
    write, out = torch.sigmoid(x @ layer.to_beta.weight.T), torch.zeros_like(q)
    for h in range(layer.heads):
        own, state = slice(h * d, (h + 1) * d), x.new_zeros(x.shape[0], d, d)
        for t in range(x.shape[1]):
            query, unit = (y[:, t, own] / (y[:, t, own].norm(dim=-1, keepdim=True) ** 2 + 1e-6).sqrt() for y in (q, k))
            alpha, beta = torch.exp(-layer.A_log[h].exp() * F.softplus(decay[:, t, own])), write[:, t, h, None, None]
            householder = torch.eye(d, dtype=x.dtype) - beta * unit[:, :, None] * unit[:, None]
            state = householder @ (alpha[..., None] * state) + beta * unit[:, :, None] * v[:, t, None, own]
            read = torch.einsum("bde,bd->be", state, query) / d**0.5
            normed = read * (read.pow(2).mean(-1, keepdim=True) + layer.norm.eps).rsqrt() * layer.norm.weight
            out[:, t, own] = normed * torch.sigmoid(gate[:, t, own])
    return out @ layer.to_out.weight.T


def test_a_layer_is_its_formulas() -> None:
    torch.manual_seed(0)
    layer = KimiDeltaAttention(16, heads=2, dim_head=4, kernel=3).double()
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    results = []
    for run in layer, lambda x: by_hand(layer, x, 4):
        out = run(x)
        results.append([out, *torch.autograd.grad(out.sin().sum(), [*layer.parameters()])])
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)


def test_every_way_of_running() -> None:
    hold("kda f kda a", **SMALL)
    said, by_torch = counted("kda f kda", SEQ, **SMALL)
    assert said == by_torch + 2 * 2 * 2 * 32**2 * (4 + 4)  # torch leaves out the triangular solves
