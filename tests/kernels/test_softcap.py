"""Soft-capped scores: by hand, by every kernel, and what is capped where an earlier block's scores are added."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import xt_blocks
from blockdsl import UserError
from xt_blocks.kernels import table
from xt_blocks.kernels.masks import Masks, MaskSpec
from xt_blocks.kernels.request import Request
from xt_blocks.kernels.scores.softcap import softcap
from xt_blocks.kernels.scores.spec import ScoreSpec

from .requests import Case, request_of

CAP = softcap(SimpleNamespace(softcap=1.5))


def test_two_keys_by_hand() -> None:
    """Scores 2 and -4, capped at 1.5: 1.5·tanh(4/3) = 1.3051 and 1.5·tanh(-8/3) = -1.4856."""
    q, k, v = torch.tensor([[[[2.0]]]]), torch.tensor([[[[1.0], [-2.0]]]]), torch.tensor([[[[1.0], [0.0]]]])
    request = Request(q, k, v, Masks(1, 1).tokens(MaskSpec(False)), ScoreSpec(1.0, (CAP,)), keep_scores=True)
    capped = 1.5 * math.tanh(4 / 3), 1.5 * math.tanh(-8 / 3)
    assert capped == pytest.approx((1.3051, -1.4856), abs=1e-4)
    weight = math.exp(capped[0]) / (math.exp(capped[0]) + math.exp(capped[1]))
    for name in ("explicit", "single query"):
        out, scores = table.run(name, request)
        assert scores is not None
        assert out.item() == pytest.approx(weight, abs=1e-6)
        assert scores.before.flatten().tolist() == pytest.approx(capped, abs=1e-6)


def written_out(request: Request, cap: float) -> Tensor:
    """A loop over rows, heads and queries of a causal attention."""
    out = torch.zeros(*request.q.shape[:3], request.v.shape[3], dtype=torch.float64)
    for b, h, i in torch.cartesian_prod(*(torch.arange(n) for n in request.q.shape[:3])).tolist():
        scores = request.k[b, h, : i + 1] @ request.q[b, h, i] * request.spec.scale
        weights = (cap * torch.tanh(scores / cap)).exp()
        out[b, h, i] = weights @ request.v[b, h, : i + 1] / weights.sum()
    return out


def test_each_kernel_against_a_loop() -> None:
    request, _ = request_of(Case(queries=70))
    want = written_out(request, 1.5)
    q, k, v = (x.detach() for x in request[:3])
    request = request._replace(q=q, k=k, v=v, spec=ScoreSpec(0.7, (CAP,)))
    able = [kernel for kernel in table.KERNELS if kernel.supports(request) is None]
    assert [kernel.name for kernel in able] == ["tiles", "flex", "explicit"]
    for kernel in able:
        torch.testing.assert_close(kernel.run(request)[0], want)


def test_torchs_fused_kernel_refuses_it_with_a_reason() -> None:
    layer = xt_blocks.Attention(dim=24, softcap=5)
    assert "  sdpa: torch's kernel has no softcap" in xt_blocks.why(layer, torch.randn(1, 7, 24))


def test_a_large_cap_changes_nothing_and_a_small_one_evens_the_weights() -> None:
    torch.manual_seed(0)
    plain = xt_blocks.Attention(dim=24, heads=3, causal=True)
    x = 9 * torch.randn(1, 7, 24)

    def capped(by: float) -> Tensor:
        layer = xt_blocks.Attention(dim=24, heads=3, causal=True, softcap=by)
        layer.load_state_dict(plain.state_dict())
        return layer(x)

    torch.testing.assert_close(capped(1e6), plain(x), rtol=1e-4, atol=1e-4)
    v = plain.project(x)[2]
    mean = v.cumsum(dim=2) / torch.arange(1, 8)[:, None]
    torch.testing.assert_close(capped(1e-6), plain.output(mean, x))


def test_an_earlier_blocks_scores_are_added_before_and_recorded_after() -> None:
    layer = xt_blocks.Attention(dim=8, heads=2, dim_head=4, residual_attn=True, softcap=0.5)
    x, before = torch.randn(1, 3, 8), torch.randn(1, 2, 3, 3)
    q, k, _ = layer.project(x)
    _, seen = layer(x, scores=before, keep_scores=True)
    torch.testing.assert_close(seen.before, 0.5 * torch.tanh((q @ k.transpose(-1, -2) / 2 + before) / 0.5))


@pytest.mark.parametrize("bias", ["alibi_pos_bias", "rel_pos_bias"])
def test_a_position_bias_is_not_capped(bias: str) -> None:
    settings: dict[str, Any] = {"dim": 8, "depth": 1, "heads": 2, "attn_dim_head": 4, bias: True}
    stack = xt_blocks.Encoder(attn_softcap=1e-6, **settings)
    for module in stack.positions.parameters():
        torch.nn.init.normal_(module)
    seen = xt_blocks.Intermediates(keep_attention=True)
    stack(torch.randn(1, 5, 8), intermediates=seen)
    (scores,) = seen.attention.values()
    (module,) = stack.positions.values()
    distance = torch.arange(5)[:, None] - torch.arange(5)
    torch.testing.assert_close(scores.before, module(distance).movedim(-1, 0)[None], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [0, -1.0])
def test_a_cap_is_above_zero(value: float) -> None:
    with pytest.raises(UserError, match="softcap must be a number above 0"):
        xt_blocks.Attention(dim=8, softcap=value)
