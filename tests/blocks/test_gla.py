"""Gated linear attention and retention against the papers' formulas, and in every way of running them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import blockdsl
from xt_blocks.blocks.gla import GatedLinearAttention

from .stateful import SEQ, counted, hold

DECAYS: list[dict[str, Any]] = [
    {"decay": "channel", "decay_rank": 3, "decay_temperature": 4},
    {"decay": "head", "decay_temperature": 4},
    {"decay": "fixed"},
]


def by_hand(layer: GatedLinearAttention, x: Tensor, d: int, e: int) -> Tensor:
    """The parallel form of arXiv:2312.06635, section 4, or of arXiv:2307.08621, section 2.1: each pair of tokens."""
    heads = layer.heads
    q, k, v, gate = (x @ layer.to_qkvg.weight.T).split([heads * d, heads * d, heads * e, heads * e], -1)
    out = torch.zeros_like(v)
    for h in range(heads):
        key, value = slice(h * d, (h + 1) * d), slice(h * e, (h + 1) * e)
        if layer.to_decay is None:
            alpha = torch.full_like(q[..., key], 1 - 2 ** -(5 + h))
        else:
            low = x if layer.to_low_rank is None else x @ layer.to_low_rank.weight.T
            own = key if layer.to_low_rank is not None else slice(h, h + 1)
            logits = low @ layer.to_decay.weight[own].T + layer.to_decay.bias[own]
            alpha = (torch.sigmoid(logits) ** (1 / 4)).expand(*x.shape[:2], d)
        for t in range(x.shape[1]):
            for s in range(t + 1):
                decayed = k[:, s, key] * alpha[:, s + 1 : t + 1].prod(1)
                score = (q[:, t, key] * decayed).sum(-1, keepdim=True) / d**0.5
                out[:, t, value] = out[:, t, value] + score * v[:, s, value]
        read = out[..., value].clone()
        out[..., value] = read * (read.pow(2).mean(-1, keepdim=True) + layer.norm.eps).rsqrt() * layer.norm.weight
    return (out * F.silu(gate)) @ layer.to_out.weight.T


@pytest.mark.parametrize("options", DECAYS, ids=lambda options: options["decay"])
def test_a_layer_is_its_formulas(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = GatedLinearAttention(16, heads=2, dim_head=4, value_dim_head=3, **options).double()
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    results = []
    for run in layer, lambda x: by_hand(layer, x, 4, 3):
        out = run(x)
        results.append([out, *torch.autograd.grad(out.sin().sum(), [*layer.parameters()])])
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("options", DECAYS, ids=lambda options: options["decay"])
def test_every_way_of_running(options: dict[str, Any]) -> None:
    settings = {"gla_heads": 2, "gla_dim_head": 4} | {f"gla_{name}": value for name, value in options.items()}
    hold("gla f gla a", **settings)
    said, by_torch = counted("gla f gla", SEQ, **settings)
    assert said == by_torch


def test_what_is_refused() -> None:
    for text, problem in (
        ("gla(decay=head, decay_rank=4)", "decay=head has no layer of low rank"),
        ("gla(decay=fixed, decay_temperature=2)", "decay_temperature=2 is set, but the decay is fixed"),
    ):
        with pytest.raises(blockdsl.UserError, match=problem):
            blockdsl.compile(text, dim=16, causal=True)


def test_many_heads_all_forget() -> None:
    """1 - 2**(-5 - head) is 1 in float32 from the twentieth head on, and its logarithm is not 0."""
    layer = GatedLinearAttention(8, heads=40, dim_head=1, value_dim_head=1, decay="fixed")
    decay = layer._log_decay(torch.zeros(1, 1, 8))[0, 0]
    want = torch.tensor([math.log1p(-(2.0 ** (-5 - head))) for head in range(40)])
    torch.testing.assert_close(decay, want, rtol=1e-6, atol=0)
