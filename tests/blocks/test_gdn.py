"""The gated delta net against the paper's formulas, token by token, and in every way of running it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import blockdsl
from xt_blocks.blocks.gdn import GatedDeltaNet

from .stateful import SEQ, counted, hold

SMALL = {"gdn_heads": 2, "gdn_dim_head": 4}
GROUPED = SMALL | {"gdn_value_heads": 4, "gdn_value_dim_head": 3, "gdn_kernel": 2, "gdn_neg_eigval": True}


def by_hand(layer: GatedDeltaNet, x: Tensor, d: int, e: int, twice: bool) -> Tensor:
    """Section 3 of arXiv:2412.06464 with figure 1's block, each head and token by itself."""
    heads, value_heads = layer.heads, layer.value_heads
    keys, values = heads * d, value_heads * e
    q, k, v, gate = (x @ layer.to_qkvg.weight.T).split([keys, keys, values, values], -1)
    b, a = (x @ layer.to_beta_decay.weight.T).split(value_heads, -1)
    kernel, mixed = layer.conv.weight.shape[-1], torch.cat([q, k, v], -1)
    before = F.pad(mixed, (0, 0, kernel - 1, 0))
    mixed = F.silu(sum(before[:, j : j + x.shape[1]] * layer.conv.weight[:, 0, j] for j in range(kernel)))
    q, k, v = mixed.split([keys, keys, values], -1)
    out = torch.zeros_like(gate)
    for h in range(value_heads):
        key = slice(h // (value_heads // heads) * d, (h // (value_heads // heads) + 1) * d)
        value, state = slice(h * e, (h + 1) * e), x.new_zeros(x.shape[0], d, e)
        for t in range(x.shape[1]):
            query, unit = (y[:, t, key] / (y[:, t, key].norm(dim=-1, keepdim=True) ** 2 + 1e-6).sqrt() for y in (q, k))
            alpha = torch.exp(-layer.A_log[h].exp() * F.softplus(a[:, t, h] + layer.dt_bias[h]))
            beta = torch.sigmoid(b[:, t, h]) * (2 if twice else 1)
            old = torch.einsum("bde,bd->be", state, unit)
            erased = state - beta[:, None, None] * unit[:, :, None] * old[:, None]
            state = alpha[:, None, None] * erased + beta[:, None, None] * unit[:, :, None] * v[:, t, None, value]
            read = torch.einsum("bde,bd->be", state, query) / d**0.5
            normed = read * (read.pow(2).mean(-1, keepdim=True) + layer.norm.eps).rsqrt() * layer.norm.weight
            out[:, t, value] = normed * F.silu(gate[:, t, value])
    return out @ layer.to_out.weight.T


@pytest.mark.parametrize(("heads", "twice"), [(2, False), (4, True)])
def test_a_layer_is_its_formulas(heads: int, twice: bool) -> None:
    torch.manual_seed(heads)
    options = {"value_heads": heads, "value_dim_head": 3, "neg_eigval": twice, "kernel": 3}
    layer = GatedDeltaNet(16, heads=2, dim_head=4, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        layer.norm.weight.uniform_(0.5, 1.5)
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    results = []
    for run in layer, lambda x: by_hand(layer, x, 4, 3, twice):
        out = run(x)
        results.append([out, *torch.autograd.grad(out.sin().sum(), [*layer.parameters()])])
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("settings", [SMALL, GROUPED])
def test_every_way_of_running(settings: dict[str, int]) -> None:
    hold("gdn f gdn a", **settings)
    said, by_torch = counted("gdn f gdn", SEQ, **settings)
    heads, e = settings.get("gdn_value_heads", 2), settings.get("gdn_value_dim_head", 4)
    assert said == by_torch + 2 * 2 * heads * 32**2 * (4 + e)  # torch leaves out the triangular solves


def test_what_is_refused() -> None:
    with pytest.raises(blockdsl.UserError, match="value_heads=3 is no multiple of heads=2"):
        blockdsl.compile("gdn(heads=2, value_heads=3)", dim=16, causal=True)
    with pytest.raises(blockdsl.UserError, match="causal"):
        blockdsl.compile("gdn f", dim=16)
    with pytest.raises(blockdsl.UserError, match="did you mean 'gdn'"):
        blockdsl.parse("gated_delta_net f")
