"""Attention sinks: by hand, by every kernel, and what is left of a row's weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import xt_blocks
from xt_blocks.kernels import table
from xt_blocks.kernels.masks import Masks, MaskSpec
from xt_blocks.kernels.request import Request
from xt_blocks.kernels.scores.sink import SinkSoftmax
from xt_blocks.kernels.scores.spec import ScoreSpec

from .requests import CASES, Case, request_of

LOGITS = torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64)


def test_two_keys_by_hand() -> None:
    """Scores 2 and -4 and a sink of 1: e² / (e² + e⁻⁴ + e) = 0.7297."""
    q, k, v = torch.tensor([[[[2.0]]]]), torch.tensor([[[[1.0], [-2.0]]]]), torch.tensor([[[[1.0], [0.0]]]])
    spec = ScoreSpec(1.0, (SinkSoftmax(torch.ones(1)),))
    request = Request(q, k, v, Masks(1, 1).tokens(MaskSpec(False)), spec, keep_scores=True)
    total = math.exp(2) + math.exp(-4) + math.exp(1)
    assert math.exp(2) / total == pytest.approx(0.7297, abs=1e-4)
    for name in ("explicit", "single query"):
        out, scores = table.run(name, request)
        assert scores is not None
        assert out.item() == pytest.approx(math.exp(2) / total, abs=1e-6)
        assert scores.weights.flatten().tolist() == pytest.approx([math.exp(2) / total, math.exp(-4) / total], abs=1e-6)


def written_out(q: Tensor, k: Tensor, v: Tensor, scale: float, logits: Tensor) -> Tensor:
    """A loop over queries of a causal attention: (b, h, i, d) each."""
    rows = []
    for i in range(q.shape[2]):
        weights = torch.einsum("bhd, bhjd -> bhj", q[:, :, i] * scale, k[:, :, : i + 1]).exp()
        total = weights.sum(dim=-1) + logits.exp()
        rows.append(torch.einsum("bhj, bhjd -> bhd", weights, v[:, :, : i + 1]) / total[..., None])
    return torch.stack(rows, dim=2)


def test_each_kernel_against_a_loop() -> None:
    request, _ = request_of(Case(queries=70))
    q, k, v = (0.3 * x.detach() for x in request[:3])
    request = request._replace(q=q, k=k, v=v, spec=ScoreSpec(0.7, (SinkSoftmax(LOGITS),)))
    able = [kernel for kernel in table.KERNELS if kernel.supports(request) is None]
    assert [kernel.name for kernel in able] == ["tiles", "flex", "explicit"]
    for kernel in able:
        torch.testing.assert_close(kernel.run(request)[0], written_out(q, k, v, 0.7, LOGITS))


@pytest.mark.parametrize("kernel", ["tiles", "explicit"])
def test_the_gradient_of_the_logits_is_that_of_differences(kernel: str) -> None:
    request, _ = request_of(Case(queries=9, past=2, mem_kv=1, window=4, padded=True, bias=True))

    def run(logits: Tensor) -> Tensor:
        return table.run(kernel, request._replace(spec=ScoreSpec(0.7, (SinkSoftmax(logits),))))[0]

    assert torch.autograd.gradcheck(run, LOGITS.clone().requires_grad_())


@pytest.mark.parametrize("case", ["causal", "a window", "learned keys", "all at once"])
def test_a_sink_far_below_takes_nothing_and_one_far_above_all(case: str) -> None:
    request, _ = request_of(CASES[case])
    plain = table.run("explicit", request)[0]

    def with_sink(logit: float) -> Tensor:
        logits = torch.full((3,), logit, dtype=torch.float64)
        return table.run("tiles", request._replace(spec=ScoreSpec(0.7, (SinkSoftmax(logits),))))[0]

    torch.testing.assert_close(with_sink(-1e3), plain)
    assert with_sink(1e3).abs().max() < 1e-12


def test_a_row_that_sees_nothing_stays_zero_and_finite() -> None:
    layer = xt_blocks.Attention(dim=8, heads=2, dim_head=4, causal=True, sink=True)
    x, mask = torch.randn(2, 300, 8, requires_grad=True), torch.tensor([[True], [False]]).expand(2, 300)
    out = layer(x, mask=mask)
    assert torch.equal(out[1], torch.zeros(300, 8))
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_the_weights_of_a_row_are_what_the_sink_leaves() -> None:
    stack = xt_blocks.Decoder(dim=8, depth=1, heads=2, attn_dim_head=4, attn_sink=True)
    torch.nn.init.constant_(stack.blocks["a0"].layer.sink.logits, 1.0)  # type: ignore[union-attr, arg-type]
    x = torch.randn(1, 5, 8)
    seen = xt_blocks.Intermediates(keep_attention=True)
    stack(x, intermediates=seen)
    scores = seen.attention["a0"]
    visible = scores.before.exp() * torch.ones(5, 5).tril()
    torch.testing.assert_close(scores.weights, visible / (visible.sum(dim=-1, keepdim=True) + math.e))
    torch.testing.assert_close(xt_blocks.attention_map(stack, x, "a0", head=1), scores.weights[0, 1])


def test_torchs_fused_kernel_refuses_it_with_a_reason() -> None:
    told = xt_blocks.why(xt_blocks.Attention(dim=24, sink=True), torch.randn(1, 7, 24))
    assert "  sdpa: torch's kernel has no sink" in told


def test_the_parameter_is_a_logit_a_head() -> None:
    layer = xt_blocks.CrossAttention(dim=24, heads=6, kv_heads=2, sink=True)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()}["sink.logits"] == (6,)
