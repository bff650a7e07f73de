"""Feedforward, norms, token shift, the residual block, embeddings: each against arithmetic written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from blockdsl.registry.norms import Norm
from xt_blocks import Block, FeedForward
from xt_blocks.blocks.block import Use
from xt_blocks.blocks.embedding import Embedding
from xt_blocks.blocks.norms import norm
from xt_blocks.blocks.shift import shift_tokens


def gelu(x: torch.Tensor) -> torch.Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def silu(x: torch.Tensor) -> torch.Tensor:
    return x / (1 + torch.exp(-x))


ACTIVATIONS = [({}, gelu), ({"swish": True}, silu), ({"relu_squared": True}, lambda x: x.clamp(min=0) ** 2)]


@pytest.mark.parametrize(("options", "activation"), ACTIVATIONS)
@pytest.mark.parametrize("glu", [False, True])
def test_feedforward_is_its_formula(options: dict[str, bool], activation, glu: bool) -> None:  # type: ignore[no-untyped-def]
    layer = FeedForward(dim=7, mult=3, glu=glu, **options).double()
    x = torch.randn(2, 5, 7, dtype=torch.float64)
    hidden = x @ layer.to_hidden.weight.T + layer.to_hidden.bias
    hidden = hidden[..., :21] * activation(hidden[..., 21:]) if glu else activation(hidden)
    torch.testing.assert_close(layer(x), hidden @ layer.to_out.weight.T + layer.to_out.bias)


def test_feedforward_sizes_and_biases() -> None:
    shapes = {
        name: tuple(p.shape) for name, p in FeedForward(dim=10, mult=2.55, no_bias=True, glu=True).named_parameters()
    }
    assert shapes == {"to_hidden.weight": (50, 10), "to_out.weight": (10, 25)}
    with pytest.raises(ValueError, match="one activation"):
        FeedForward(dim=4, swish=True, relu_squared=True)


def test_norms_are_their_formulas() -> None:
    x = torch.randn(3, 5, 13)
    rms = norm(Norm.of("rmsnorm", {}), 13)
    nn.init.normal_(rms.weight)  # type: ignore[arg-type]
    torch.testing.assert_close(rms(x), x / x.square().mean(-1, keepdim=True).sqrt() * rms.weight)
    layer = norm(Norm.of("layernorm", {}), 13)
    centred = x - x.mean(-1, keepdim=True)
    torch.testing.assert_close(layer(x), centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt())
    assert norm(None, 13)(x) is x


def test_causal_shift_takes_the_ith_part_from_i_tokens_before() -> None:
    x = torch.arange(1.0, 36.0).reshape(1, 5, 7)  # parts of 2, 2, 2 and one feature left over
    out = shift_tokens(x, 2, causal=True)
    for t in range(5):
        assert out[0, t, 0:2].tolist() == x[0, t, 0:2].tolist()
        assert out[0, t, 2:4].tolist() == (x[0, t - 1, 2:4].tolist() if t >= 1 else [0, 0])
        assert out[0, t, 4:6].tolist() == (x[0, t - 2, 4:6].tolist() if t >= 2 else [0, 0])
        assert out[0, t, 6] == x[0, t, 6]


def test_two_sided_shift_looks_both_ways() -> None:
    x = torch.arange(1.0, 13.0).reshape(1, 4, 3)
    out = shift_tokens(x, 1, causal=False)
    assert out[0, :, 0].tolist() == [*x[0, 1:, 0].tolist(), 0]  # from one token after
    assert out[0, :, 1].tolist() == x[0, :, 1].tolist()
    assert out[0, :, 2].tolist() == [0, *x[0, :-1, 2].tolist()]  # from one token before


@pytest.mark.parametrize("causal", [False, True])
def test_shift_farther_than_the_sequence_is_zeros(causal: bool) -> None:
    x = torch.ones(1, 2, 8)
    out = shift_tokens(x, 3, causal)
    assert out.shape == x.shape
    assert out[0, 0, -2:].tolist() == ([0, 0] if causal else [0, 1])


def test_shift_never_moves_a_masked_token() -> None:
    x = torch.randn(1, 6, 4)
    mask = torch.tensor([[False, False, True, True, True, True]])
    alone = shift_tokens(x[:, 2:], 1, causal=True)
    torch.testing.assert_close(shift_tokens(x, 1, causal=True, mask=mask)[:, 2:], alone)


@pytest.mark.parametrize("name", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("pre_norm", [False, True])
def test_the_block_is_the_diagram(name: str, pre_norm: bool) -> None:
    layer = nn.Linear(8, 8)
    block = Block(layer, 8, Norm.of(name, {}), pre_norm)
    x = torch.randn(2, 5, 8)
    read = shift_tokens(block.norm(x) if pre_norm else x, 1, causal=True)
    summed = x + 0.5 * layer(read)
    expected = summed if pre_norm else block.norm(summed)
    torch.testing.assert_close(block(x, Use(shift=1, scale=0.5, causal=True)).stream, expected)


def test_stochastic_depth_skips_rows_and_keeps_the_mean() -> None:
    block = Block(nn.Identity(), 4, Norm.of("layernorm", {}), drop=0.25)
    x = torch.randn(4000, 1, 4)
    kept = block(x).stream - x
    rows = kept.abs().sum((1, 2)) > 0
    assert rows.float().mean() == pytest.approx(0.75, abs=0.03)
    torch.testing.assert_close(kept[rows], (block.norm(x) / 0.75)[rows])
    block.eval()
    torch.testing.assert_close(block(x).stream, x + block.norm(x))


def test_embeddings_are_drawn_with_the_asked_for_spread() -> None:
    table = Embedding(4000, 64, std=0.3)
    assert table.weight.std().item() == pytest.approx(0.3, rel=0.02)
    with torch.device("meta"):
        table = Embedding(4000, 64, std=0.3)
    assert table.weight.is_meta
    table.to_empty(device="cpu").reset_parameters()
    assert table.weight.std().item() == pytest.approx(0.3, rel=0.02)


def test_dropout_may_train_alone() -> None:
    layer, x = FeedForward(dim=24, dropout=0.5).eval(), torch.randn(1, 4, 24)
    assert torch.equal(layer(x), layer(x))
    layer.dropout.train()  # as for a model that is uncertain by dropout, arXiv:1506.02142
    assert not torch.equal(layer(x), layer(x))
