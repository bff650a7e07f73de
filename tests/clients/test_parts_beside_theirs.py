"""Each name of x-transformers does what it does there: by hand, and beside the installed release."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xt_blocks import x_transformers as ours
from xt_blocks.x_transformers import attend, autoregressive_wrapper


@pytest.fixture
def theirs() -> Any:
    """The module that has most of the installed release, which some tests compare with."""
    module = pytest.importorskip("x_transformers.x_transformers")
    if not hasattr(module, "CoPE"):
        pytest.skip("another release of x-transformers")
    return module


@pytest.fixture
def their_filters(theirs: Any) -> Any:
    return import_module("x_transformers.autoregressive_wrapper")


@pytest.fixture
def their_attend(theirs: Any) -> Any:
    return import_module("x_transformers.attend")


def close(one: Any, other: Any, atol: float = 1e-5) -> None:
    torch.testing.assert_close(one, other, atol=atol, rtol=1e-5)


def x(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("name", ["RMSNorm", "ScaleNorm", "LayerNorm"])
def test_norms(name: str, offset: bool, theirs: Any) -> None:
    mine, other = (getattr(package, name)(8, unit_offset=offset) for package in (ours, theirs))
    close(mine(x(2, 3, 8)), other(x(2, 3, 8)))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.3)
    mine.load_state_dict(other.state_dict())
    close(mine(x(2, 3, 8)), other(x(2, 3, 8)))
    if name != "LayerNorm":
        values = x(2, 3, 8)
        gain = 1.3
        close(mine(values), values / values.square().mean(dim=-1, keepdim=True).sqrt() * gain)


@pytest.mark.parametrize("unit", [False, True])
def test_embeddings(unit: bool, theirs: Any) -> None:
    tokens = torch.randint(0, 10, (2, 5))
    mine, other = (package.TokenEmbedding(8, 10, l2norm_embed=unit) for package in (ours, theirs))
    mine.load_state_dict(other.state_dict())
    close(mine(tokens), other(tokens))
    mine, other = (package.AbsolutePositionalEmbedding(8, 6, l2norm_embed=unit) for package in (ours, theirs))
    mine.load_state_dict(other.state_dict())
    for given in ({}, {"offset": 1}, {"pos": torch.tensor([4, 2, 0])}, {"seq_start_pos": torch.tensor([1, 0])}):
        close(mine(x(2, 3, 8), **given), other(x(2, 3, 8), **given))
    with pytest.raises(ValueError, match="max_seq_len is 6"):
        mine(x(2, 7, 8))


def test_drawn_embeddings() -> None:
    torch.manual_seed(0)
    for unit, std in ((True, 1e-5), (False, math.sqrt(2 / 64))):  # He et al., arXiv:1502.01852: sqrt(2 / fan in)
        embedding = ours.TokenEmbedding(64, 1000, l2norm_embed=unit)
        embedding.init_()
        assert abs(float(embedding.emb.weight.detach().std()) / std - 1) < 0.05


def test_sinusoids(theirs: Any) -> None:
    mine, other = ours.ScaledSinusoidalEmbedding(8), theirs.ScaledSinusoidalEmbedding(8)
    close(mine(x(2, 3, 8)), other(x(2, 3, 8)))
    close(mine(x(2, 3, 8), pos=torch.tensor([0, 5, 7])), other(x(2, 3, 8), pos=torch.tensor([0, 5, 7])))
    close(mine(x(2, 3, 8))[1, 0], torch.tensor(math.sin(1) * 8**-0.5))
    rows = mine(x(2, 3, 8), seq_start_pos=torch.tensor([0, 1]))
    close(rows[1], mine(x(1, 3, 8), pos=torch.tensor([-1, 0, 1])))
    with pytest.raises(ValueError, match="even"):
        ours.ScaledSinusoidalEmbedding(7)


@pytest.mark.parametrize(
    "options", [{}, {"use_xpos": True}, {"interpolation_factor": 2.0}, {"base_rescale_factor": 3.0}]
)
def test_rotary_positions(options: dict[str, Any], theirs: Any) -> None:
    mine, other = (package.RotaryEmbedding(8, **options) for package in (ours, theirs))
    (angles, factor), (expected, expected_factor) = (module.forward_from_seq_len(5) for module in (mine, other))
    close(angles, expected)
    close(factor, expected_factor)
    for shape in ((2, 5, 12), (2, 3, 5, 12)):
        close(
            ours.apply_rotary_pos_emb(x(*shape), angles, factor), theirs.apply_rotary_pos_emb(x(*shape), angles, factor)
        )
    last = ours.apply_rotary_pos_emb(x(2, 3, 5, 8), angles, factor)[:, :, -2:]
    close(ours.apply_rotary_pos_emb(x(2, 3, 5, 8)[:, :, -2:], angles, factor), last)
    rows = torch.tensor([[0, 1], [3, 4]])
    close(mine(rows)[0], other(rows)[0])
    close(mine(5, "cpu")[0], angles)  # as 1.x calls it


def test_rotary_scores_depend_on_distance_alone() -> None:
    angles, factor = ours.RotaryEmbedding(8).forward_from_seq_len(9)
    q, k = x(8).expand(1, 9, 8), x(8, seed=1).expand(1, 9, 8)
    scores = ours.apply_rotary_pos_emb(q, angles, factor) @ ours.apply_rotary_pos_emb(k, angles, factor).transpose(1, 2)
    close(scores[0, 2:, 2:], scores[0, :-2, :-2])
    close(scores.diagonal(dim1=1, dim2=2), (q * k).sum(dim=-1))


def test_filters(their_filters: Any) -> None:
    logits = x(3, 40) * 3
    for name, arguments in (
        ("top_k", {}),
        ("top_k", {"k": 5}),
        ("top_k", {"frac_num_tokens": 0.2}),
        ("top_p", {}),
        ("top_p", {"thres": 0.6}),
        ("top_a", {}),
        ("top_a", {"min_p_pow": 1.5, "min_p_ratio": 0.1}),
        ("min_p", {"min_p": 0.2}),
    ):
        close(getattr(ours, name)(logits, **arguments), getattr(their_filters, name)(logits.clone(), **arguments))


def test_top_k_in_the_words_of_1x() -> None:
    logits = torch.arange(20.0)[None]
    assert int((ours.top_k(logits, thres=0.9) > float("-inf")).sum()) == 2
    with pytest.warns(UserWarning, match="write thres=0.9"):
        assert int((ours.top_k(logits, 0.9) > float("-inf")).sum()) == 18
    with pytest.raises(TypeError, match="say the same"):
        ours.top_k(logits, k=3, thres=0.9)


def test_gumbel_sampling_has_the_softmax_distribution() -> None:
    torch.manual_seed(0)
    p = torch.tensor([0.1, 0.2, 0.7])
    counts = ours.gumbel_sample(p.log().expand(20_000, 3)).bincount(minlength=3) / 20_000
    assert (counts - p).abs().max() < 0.02


def test_values() -> None:
    assert ours.exists(0)
    assert not ours.exists(None)
    assert ours.default(None, 2) == 2
    assert ours.default(1, 2) == 1
    assert ours.default(None, lambda: 3) == 3
    assert ours.identity(4, "more") == 4
    assert ours.first([5, 6]) == 5
    assert ours.first([], 7) == 7
    assert ours.is_empty([])
    assert not ours.is_empty([1])
    assert ours.cast_tuple(1, 3) == (1, 1, 1)
    assert ours.cast_tuple((1, 2), 3) == (1, 2)
    assert ours.divisible_by(6, 3)
    assert not ours.divisible_by(7, 3)
    assert ours.at_most_one_of(True, False)
    assert not ours.at_most_one_of(True, True)
    assert ours.maybe(lambda t: t + 1)(1) == 2
    assert ours.maybe(lambda t: t + 1)(None) is None
    assert ours.maybe(None)(3) == 3
    assert ours.always(1)(2) == 1
    assert ours.equals(1)(1)
    assert not ours.equals(1)(2)
    assert ours.not_equals(1)(2)
    assert ours.DEFAULT_DIM_HEAD == 64


def test_dictionaries() -> None:
    d = {"attn_a": 1, "ff_b": 2, "c": 3}
    assert ours.groupby_prefix_and_trim("attn_", d) == ({"a": 1}, {"ff_b": 2, "c": 3})
    assert ours.group_by_key_prefix("ff_", d) == ({"ff_b": 2}, {"attn_a": 1, "c": 3})
    assert ours.group_dict_by_key(lambda key: key == "c", d) == ({"c": 3}, {"attn_a": 1, "ff_b": 2})
    assert ours.pick_and_pop(["c"], d) == {"c": 3}
    assert "c" not in d
    assert ours.string_begins_with("at", "attn")
    assert not ours.string_begins_with("x", "attn")


def test_tensors(theirs: Any, their_filters: Any) -> None:
    t = x(2, 3, 8)
    close(ours.log(torch.tensor([0.0, 1.0])), torch.tensor([math.log(1e-20), 0.0]))
    assert ours.max_neg_value(t) == torch.finfo(torch.float32).min
    close(ours.l2norm(t, groups=2), theirs.l2norm(t, groups=2))
    close(ours.softclamp(t, 0.5), 0.5 * torch.tanh(t / 0.5))
    mask = torch.tensor([[True, True, False], [False, False, False]])
    close(ours.masked_mean(t, mask), torch.stack((t[0, :2].mean(dim=0), torch.zeros(8))))
    close(ours.masked_mean(t), t.mean(dim=1))
    for dim in (-2, 1):
        close(ours.pad_at_dim(t, (2, -1), dim=dim, value=7.0), theirs.pad_at_dim(t, (2, -1), dim=dim, value=7.0))
    lens = torch.tensor([2, 3])
    close(autoregressive_wrapper.align_right(t[..., 0], lens), their_filters.align_right(t[..., 0], lens)[:, -3:])
    assert autoregressive_wrapper.align_right(t, lens)[0, 0].eq(0).all()
    close(ours.shift(t, 1, mask), theirs.shift(t, 1, mask))
    close(ours.shift(t, -2), theirs.shift(t, -2))
    shifts = [ours.ShiftTokens((0, 1, -1), nn.Identity())(t), theirs.ShiftTokens((0, 1, -1), nn.Identity())(t)]
    close(*shifts)
    linear = nn.Linear(2, 2)
    ours.init_zero_(linear)
    assert not any(parameter.any() for parameter in linear.parameters())


def test_dropout_of_a_sequence() -> None:
    seq, mask = ours.dropout_seq(x(2, 10, 4), torch.arange(10).expand(2, 10) < 8, 0.5)
    assert torch.equal(seq, x(2, 10, 4))
    assert mask.sum(dim=1).tolist() == [4, 4]
    assert not mask[:, 8:].any()


def test_residuals_and_gates(theirs: Any) -> None:
    update, stream = x(2, 3, 8), x(2, 3, 8, seed=1)
    gain = torch.linspace(0.5, 1.5, 8)
    for name, options in (("Residual", {"scale_residual_constant": 0.7}), ("GRUGating", {})):
        mine, other = (getattr(package, name)(8, scale_residual=True, **options) for package in (ours, theirs))
        with torch.no_grad():
            other.residual_scale.copy_(gain)
        mine.load_state_dict(other.state_dict())
        close(mine(update, stream), other(update, stream))
    close(ours.Residual(8, scale_residual_constant=0.7)(update, stream), update + 0.7 * stream)
    close(ours.ReluSquared()(update), F.relu(update) ** 2)
    mine, other = (package.GLU(8, 5, nn.SiLU()) for package in (ours, theirs))
    mine.load_state_dict(other.state_dict())
    close(mine(update), other(update))


@pytest.mark.parametrize("causal", [False, True])
def test_attend(causal: bool, their_attend: Any) -> None:
    q, k, v = x(2, 3, 4, 8), x(2, 3, 6, 8, seed=1), x(2, 3, 6, 8, seed=2)
    mask, bias = torch.tensor([[True] * 5 + [False], [True] * 6]), x(3, 4, 6, seed=3)
    other = their_attend.Attend(causal=causal, heads=3)
    for flash in (False, True):
        mine = attend.Attend(causal=causal, heads=3, flash=flash)
        for given in ({}, {"mask": mask[:, None, None]}, {"attn_bias": bias}):
            (out, _), (expected, _seen) = mine(q, k, v, **given), other(q, k, v, **given)
            close(out, expected)
        assert flash or mine(q, k, v)[1] is not None
    close(attend.Attend(causal=causal)(q, k, v)[1].post_softmax_attn, other(q, k, v)[1].post_softmax_attn)
    torch.manual_seed(0)
    dropped = attend.Attend(dropout=0.5)(q, k, v)[0]
    assert not torch.allclose(dropped, attend.Attend(dropout=0.5).eval()(q, k, v)[0])


@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_a_context(causal: bool, theirs: Any) -> None:
    """Beside their layer, with its weights: to itself, to a context, with memories, masks and rotary positions."""
    options = {"dim": 16, "dim_head": 8, "heads": 2, "causal": causal}
    mine, other = ours.Attention(**options), theirs.Attention(**options)
    with torch.no_grad():
        mine.to_qkv.weight.copy_(torch.cat([getattr(other, name).weight for name in ("to_q", "to_k", "to_v")]))
        mine.to_out.weight.copy_(other.to_out.weight)
    y, context, mem = x(2, 5, 16), x(2, 7, 16, seed=1), x(2, 3, 16, seed=2)
    rotary = ours.RotaryEmbedding(8).forward_from_seq_len(8)
    mask = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    context_mask = torch.tensor([[True] * 6 + [False], [True] * 7])
    for given in (
        {},
        {"mask": mask},
        {"context": context},
        {"context": context, "context_mask": context_mask},
        {"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril(1)},
        {"mem": mem, "rotary_pos_emb": rotary},
    ):
        close(mine(y, **given), other(y, **given))
    _out, seen = mine(y, return_intermediates=True)
    close(seen.post_softmax_attn, other(y, return_intermediates=True)[1].post_softmax_attn)
    if causal:
        with pytest.raises(ValueError, match="a key for each query"):
            mine(context, context=y)
    else:
        close(mine(context, context=y), other(context, context=y))


def test_feedforward() -> None:
    assert ours.FeedForward(8, 8, 2, zero_init_output=True)(x(1, 3, 8)).eq(0).all()
    assert ours.FeedForward(8, 9)(x(1, 3, 8)).shape == (1, 3, 9)
    with pytest.raises(TypeError, match=r"solu=True.*not here"):
        ours.FeedForward(8, solu=True)
    with pytest.raises(TypeError, match="deep_embed"):
        ours.FeedForward(8)(x(1, 3, 8), x(1))
