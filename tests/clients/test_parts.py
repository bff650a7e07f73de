"""Names of x-transformers by hand, where the installed release is not needed; `test_parts_beside_theirs` has it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xt_blocks import x_transformers as ours
from xt_blocks.x_transformers import attend, autoregressive_wrapper


def close(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def x(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_norms(offset: float) -> None:
    values, gain = x(2, 3, 8), torch.linspace(0.5, 1.5, 8)
    rms, scale, layer = (getattr(ours, n)(8, unit_offset=bool(offset)) for n in ("RMSNorm", "ScaleNorm", "LayerNorm"))
    close(rms(values), values / values.square().mean(dim=-1, keepdim=True).sqrt())  # new, the gain is one
    with torch.no_grad():
        rms.g.copy_(gain - offset)
        scale.g.fill_(1.5 - offset)
        layer.gamma.copy_(gain - offset)
    unit = values / values.square().mean(dim=-1, keepdim=True).sqrt()
    close(rms(values), unit * gain)
    close(scale(values), unit * 1.5)
    centred = values - values.mean(dim=-1, keepdim=True)
    close(layer(values), centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * gain)


def test_norms_by_a_condition() -> None:
    values, condition = x(2, 3, 8), x(2, 5, seed=1)
    unit = values / values.square().mean(dim=-1, keepdim=True).sqrt()
    centred = values - values.mean(dim=-1, keepdim=True)
    close(ours.SimpleRMSNorm(8)(values), unit)
    for name, normed in (
        ("RMS", unit),
        ("Layer", centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()),
    ):
        norm = getattr(ours, f"Adaptive{name}Norm")(8, dim_condition=5)
        close(norm(values, condition=condition), normed)  # new, the gain is one
        nn.init.constant_(norm.to_gamma.weight, 0.5)
        gain = 1 + 0.5 * condition.sum(dim=-1)[:, None, None]
        close(norm(values, condition=condition), normed * gain)
        close(norm(values, condition=condition[:, None].expand(-1, 3, -1)), normed * gain)


def test_embeddings() -> None:
    tokens = torch.tensor([[3, 1], [0, 3]])
    embedding = ours.TokenEmbedding(8, 10)
    assert torch.equal(embedding(tokens), embedding.emb.weight[tokens])
    close(ours.TokenEmbedding(8, 10, l2norm_embed=True)(tokens).norm(dim=-1), torch.ones(2, 2))
    positions = ours.AbsolutePositionalEmbedding(8, 6)
    table = positions.emb.weight * 8**-0.5
    close(positions(x(2, 3, 8)), table[:3])
    close(positions(x(2, 3, 8), offset=2), table[2:5])
    close(positions(x(2, 3, 8), pos=torch.tensor([4, 2, 0])), table[[4, 2, 0]])
    close(positions(x(2, 3, 8), seq_start_pos=torch.tensor([1, 0])), table[torch.tensor([[0, 0, 1], [0, 1, 2]])])
    close(ours.AbsolutePositionalEmbedding(8, 6, l2norm_embed=True)(x(1, 4, 8)).norm(dim=-1), torch.ones(4))


def test_rotary_positions() -> None:
    angles, factor = ours.RotaryEmbedding(4).forward_from_seq_len(3)
    assert factor == 1.0
    assert angles.shape == (1, 3, 4)
    close(angles[0, 2], torch.tensor([2.0, 2.0, 2 / 100, 2 / 100]))  # 10000^(2/4) is 100
    t = x(1, 3, 6)
    a, b, c, d, *rest = t[0, 2].tolist()
    cos, sin, cos2, sin2 = math.cos(2), math.sin(2), math.cos(0.02), math.sin(0.02)
    by_hand = [a * cos - b * sin, b * cos + a * sin, c * cos2 - d * sin2, d * cos2 + c * sin2, *rest]
    close(ours.apply_rotary_pos_emb(t, angles)[0, 2], torch.tensor(by_hand))
    close(ours.RotaryEmbedding(4, interpolation_factor=2.0).forward_from_seq_len(3)[0], angles / 2)
    _, decay = ours.RotaryEmbedding(4, use_xpos=True, scale_base=8).forward_from_seq_len(4)
    close(decay[0, 3, 0], torch.tensor(((0.4 * 4) / (1.4 * 4)) ** ((3 - 2) / 8)))
    with pytest.raises(ValueError, match="at least 1"):
        ours.RotaryEmbedding(4, interpolation_factor=0.5)


def test_filters() -> None:
    logits = torch.tensor([[4.0, 1.0, 3.0, 2.0]])
    p = logits.softmax(dim=-1)[0].tolist()

    def kept(filtered: torch.Tensor) -> list[int]:
        return (filtered[0] > float("-inf")).nonzero()[:, 0].tolist()

    assert kept(ours.top_k(logits, k=2)) == [0, 2]
    assert kept(ours.top_k(logits)) == [0]
    assert kept(ours.top_k(logits, frac_num_tokens=0.5)) == [0, 2]
    assert kept(ours.top_k(logits, thres=0.5)) == [0, 2]
    assert kept(ours.top_p(logits, thres=p[0] + 0.01)) == [0, 2]
    assert kept(ours.min_p(logits, min_p=p[3] / p[0] - 0.01)) == [0, 2, 3]
    assert kept(ours.top_a(logits, min_p_pow=1.0, min_p_ratio=p[2] / p[0] - 0.01)) == [0, 2]


def test_tensors() -> None:
    t = x(2, 3, 8)
    assert torch.equal(ours.pad_at_dim(t, (2, -1), dim=1, value=7.0)[:, 2:], t[:, :2])
    assert ours.pad_at_dim(t, (2, -1), dim=-2, value=7.0)[:, :2].eq(7).all()
    assert torch.equal(ours.shift(t, 1)[:, 1:], t[:, :2])
    assert not ours.shift(t, 1)[:, 0].any()
    assert torch.equal(ours.shift(t, -2)[:, 0], t[:, 2])
    moved = ours.ShiftTokens((0, 1), nn.Identity())(t)
    assert torch.equal(moved[..., :4], t[..., :4])
    assert torch.equal(moved[:, 1:, 4:], t[:, :2, 4:])
    close(ours.l2norm(t, groups=2).unflatten(-1, (2, 4)).norm(dim=-1), torch.ones(2, 3, 2))
    right = torch.tensor([[1, 2, 0], [3, 4, 5]])
    assert autoregressive_wrapper.align_right(right, torch.tensor([2, 3]), pad_id=9).tolist() == [[9, 1, 2], [3, 4, 5]]


def test_residuals() -> None:
    update, stream, gain = x(2, 3, 8), x(2, 3, 8, seed=1), torch.linspace(0.5, 1.5, 8)
    residual, gate = (
        ours.Residual(8, scale_residual=True, scale_residual_constant=0.7),
        ours.GRUGating(8, scale_residual=True),
    )
    with torch.no_grad():
        residual.residual_scale.copy_(gain)
        gate.residual_scale.copy_(gain)
    close(residual(update, stream), update + stream * gain * 0.7)
    close(gate(update, stream)[1, 2], gate.gru(update[1, 2], stream[1, 2] * gain))
    glu = ours.GLU(8, 5, nn.SiLU())
    values, gates = glu.proj(update).split(5, dim=-1)
    close(glu(update), values * F.silu(gates))
    close(ours.ReluSquared()(update), update.clamp(min=0) ** 2)


@pytest.mark.parametrize("causal", [False, True])
def test_attend(causal: bool) -> None:
    q, k, v = x(2, 3, 4, 8), x(2, 3, 6, 8, seed=1), x(2, 3, 6, 8, seed=2)
    bias, mask = x(3, 4, 6, seed=3), torch.tensor([[True] * 5 + [False], [True] * 6])
    scores = torch.einsum("bhid,bhjd->bhij", q, k) / 8**0.5 + bias
    seen = mask[:, None, None] & (torch.ones(4, 6, dtype=torch.bool).tril(2) if causal else True)
    weights = scores.masked_fill(~seen, float("-inf")).softmax(dim=-1)
    out, intermediates = attend.Attend(causal=causal)(q, k, v, mask=mask, attn_bias=bias)
    close(out, weights @ v)
    close(intermediates.post_softmax_attn, weights)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_a_context(causal: bool) -> None:
    layer = ours.Attention(16, dim_head=8, heads=2, causal=causal)
    y, context = x(1, 3, 16), x(1, 5, 16, seed=1)
    q, k, v = (
        t.unflatten(-1, (2, 8)).transpose(1, 2) for t in (layer.to_q(y), layer.to_k(context), layer.to_v(context))
    )
    seen = torch.ones(3, 5, dtype=torch.bool).tril(2) if causal else None
    expected = F.scaled_dot_product_attention(q, k, v, seen).transpose(1, 2).flatten(2)
    close(layer(y, context=context), layer.to_out(expected))
    close(layer(y, mem=context[:, :2]), layer(y, context=torch.cat((context[:, :2], y), dim=1)))
