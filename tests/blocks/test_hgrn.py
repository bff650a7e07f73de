"""HGRN2 against the paper's formulas, token by token, and in every way of running it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from xt_blocks.blocks.hgrn import HGRN2

from .stateful import SEQ, counted, hold


def by_hand(layer: HGRN2, x: Tensor, d: int, e: int, lower: float) -> Tensor:
    """Section 3 of arXiv:2404.07904, each head and token by itself."""
    heads = layer.heads
    q, forget, v = (x @ layer.to_qfv.weight.T).split([heads * d, heads * d, heads * e], -1)
    f, query, out = lower + (1 - lower) * torch.sigmoid(forget), F.silu(q), torch.zeros_like(v)
    for h in range(heads):
        key, value, state = slice(h * d, (h + 1) * d), slice(h * e, (h + 1) * e), x.new_zeros(x.shape[0], d, e)
        for t in range(x.shape[1]):
            keep = f[:, t, key, None]
            state = keep * state + (1 - keep) * v[:, t, None, value]
            out[:, t, value] = (query[:, t, key, None] * state).sum(1)
    return (
        out * (out.pow(2).mean(-1, keepdim=True) + layer.norm.eps).rsqrt() * layer.norm.weight @ layer.to_out.weight.T
    )


@pytest.mark.parametrize("lower", [0.0, 0.3])
def test_a_layer_is_its_formulas(lower: float) -> None:
    torch.manual_seed(0)
    layer = HGRN2(16, heads=2, dim_head=4, value_dim_head=3, lower_bound=lower).double()
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    results = []
    for run in layer, lambda x: by_hand(layer, x, 4, 3, lower):
        out = run(x)
        results.append([out, *torch.autograd.grad(out.sin().sum(), [*layer.parameters()])])
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)


def test_every_way_of_running() -> None:
    settings = {"hgrn_heads": 2, "hgrn_dim_head": 4}
    hold("hgrn f hgrn(lower_bound=0.5, value_dim_head=3) a", **settings)
    said, by_torch = counted("hgrn f hgrn", SEQ, **settings)
    assert said == by_torch
