"""Vectors in, vectors out; next-vector training and generation."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from xt_blocks import (
    AutoregressiveWrapper,
    ContinuousAutoregressiveWrapper,
    ContinuousTransformerWrapper,
    Decoder,
    Encoder,
    TransformerWrapper,
)

SIZES: dict[str, Any] = {"dim": 12, "heads": 2, "attn_dim_head": 6, "depth": 2}


def model(stack: Any = None, **kwargs: Any) -> ContinuousTransformerWrapper:
    sizes: dict[str, Any] = {"max_seq_len": 8, "dim_in": 5, "dim_out": 7}
    return ContinuousTransformerWrapper(attn_layers=stack or Decoder(**SIZES), **(sizes | kwargs)).eval()


def trainer(stack: Any = None, **kwargs: Any) -> ContinuousAutoregressiveWrapper:
    return ContinuousAutoregressiveWrapper(model(stack, **({"dim_out": 5} | kwargs))).eval()


# The model ---------------------------------------------------------------------------------------------------------


def test_outputs_are_the_parts_put_together() -> None:
    m = model(emb_dim=6, post_emb_norm=True)
    x = torch.randn(2, 4, 5)
    projected = x @ m.project_in.weight.T + m.project_in.bias + m.pos_emb.embedding.weight[:4]  # type: ignore[union-attr]
    stream = F.layer_norm(projected, (6,)) @ m.project_emb.weight.T + m.project_emb.bias
    hidden = m.attn_layers(stream)
    torch.testing.assert_close(m(x, return_embeddings=True), hidden)
    torch.testing.assert_close(m(x), hidden @ m.project_out.weight.T + m.project_out.bias)


def test_without_sizes_vectors_are_taken_as_they_are() -> None:
    m = model(dim_in=None, dim_out=None, use_abs_pos_emb=False)
    x = torch.randn(2, 4, 12)
    assert torch.equal(m(x), m.attn_layers(x))
    assert [name for name, _ in m.named_parameters() if not name.startswith("attn_layers.")] == []
    assert model(dim_in=None, emb_dim=6)(torch.randn(1, 3, 6)).shape == (1, 3, 7)


def test_absolute_positions_give_way_to_rotary_ones() -> None:
    rotary = Decoder(rotary_pos_emb=True, **SIZES)
    assert model(rotary).pos_emb is None
    assert model(rotary)(torch.randn(1, 20, 5)).shape == (1, 20, 7)
    assert type(model(scaled_sinu_pos_emb=True).pos_emb).__name__ == "SinusoidalPositions"
    with pytest.raises(
        ValueError, match="scaled_sinu_pos_emb is set, but a model with rotary positions has no absolute"
    ):
        model(rotary, scaled_sinu_pos_emb=True)
    with pytest.raises(ValueError, match="use_abs_pos_emb=false turns absolute positions off"):
        model(scaled_sinu_pos_emb=True, use_abs_pos_emb=False)


@pytest.mark.parametrize("kwargs", [{}, {"num_memory_tokens": 2}, {"scaled_sinu_pos_emb": True}])
@pytest.mark.parametrize("causal", [True, False])
def test_padding_on_either_side_changes_nothing(kwargs: dict[str, Any], causal: bool) -> None:
    m = model((Decoder if causal else Encoder)(**SIZES), **kwargs)
    x, junk = torch.randn(1, 4, 5), 50 * torch.randn(1, 4, 5)
    alone = m(x)
    for left in (0, 1, 4):
        padded = torch.cat((junk[:, :left], x, junk[:, left:]), dim=1)
        mask = torch.zeros(1, 8, dtype=torch.bool)
        mask[:, left : left + 4] = True
        torch.testing.assert_close(m(padded, mask=mask)[:, left : left + 4], alone, rtol=1e-4, atol=1e-5)


def test_prepended_embeddings_stand_in_front() -> None:
    m = model(Encoder(**SIZES))
    x, front = torch.randn(1, 4, 5), torch.randn(1, 3, 12)
    stream = torch.cat((front, m.project_in(x) + m.pos_emb.embedding.weight[:4]), dim=1)  # type: ignore[union-attr]
    torch.testing.assert_close(m(x, prepend_embeds=front, return_embeddings=True), m.attn_layers(stream))
    mask = torch.tensor([[True, True, False]])
    cut = m(x, prepend_embeds=front, prepend_mask=mask)[:, [0, 1, 3, 4, 5, 6]]
    torch.testing.assert_close(cut, m(x, prepend_embeds=front[:, :2]), rtol=1e-4, atol=1e-5)


def test_given_positions_are_used() -> None:
    m = model()
    x = torch.randn(2, 3, 5)
    moved = model()
    moved.load_state_dict(m.state_dict())
    with torch.no_grad():
        moved.pos_emb.embedding.weight.copy_(m.pos_emb.embedding.weight.roll(2, dims=0))  # type: ignore[union-attr]
    torch.testing.assert_close(moved(x, pos=torch.tensor([2, 3, 4])), m(x))


def test_a_context_is_read() -> None:
    m = model(Decoder(cross_attend=True, **SIZES))
    x, context = torch.randn(2, 3, 5), torch.randn(2, 4, 12)
    mask = torch.arange(4) < torch.tensor([[4], [2]])
    out = m(x, context=context, context_mask=mask)
    torch.testing.assert_close(out[1:], m(x[1:], context=context[1:, :2]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(out, m(x, context=-context, context_mask=mask))


def test_masks_of_pairs_and_what_a_pass_went_through() -> None:
    m = model(Encoder(**SIZES))
    x = torch.randn(1, 4, 5)
    pairs = torch.ones(4, 4, dtype=torch.bool).tril()
    causal = ContinuousTransformerWrapper(max_seq_len=8, dim_in=5, dim_out=7, attn_layers=Decoder(**SIZES)).eval()
    causal.load_state_dict(m.state_dict())
    torch.testing.assert_close(m(x, attn_mask=pairs), causal(x))
    out, weights = m(x, attn_mask=pairs, return_attn=True)
    torch.testing.assert_close(out, causal(x))
    assert [w.shape for w in weights] == [(1, 2, 4, 4)] * 2
    assert not weights[0].masked_select(~pairs).any()
    with pytest.raises(ValueError, match="return_mems is set, but the model keeps no memories"):
        m(x, return_mems=True)


@pytest.mark.parametrize("kwargs", [{}, {"emb_dim": 6, "num_memory_tokens": 2, "post_emb_norm": True}])
def test_every_parameter_trains(kwargs: dict[str, Any]) -> None:
    m = model(Encoder(**SIZES), **kwargs).train()
    out = m(torch.randn(2, 8, 5))
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in m.named_parameters():
        assert parameter.grad is not None, name
        rows = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad[None]
        assert (rows.abs().sum(1) > 0).all(), name


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"max_seq_len": -1}, ValueError, "max_seq_len must be a whole number of at least 0 or none, not -1"),
    ({"dim_in": 0}, ValueError, "dim_in must be a whole number of at least 1 or none, not 0"),
    ({"dim_out": 2.5}, ValueError, "dim_out must be a whole number of at least 1 or none, not 2.5"),
    ({"emb_dim": 0}, ValueError, "emb_dim must be a whole number of at least 1 or none, not 0"),
    ({"emb_dropout": 1}, ValueError, "emb_dropout must be a number of at least 0 and below 1, not 1"),
    ({"num_memory_tokens": -1}, ValueError, "num_memory_tokens must be a whole number of at least 0, not -1"),
    ({"post_emb_norm": 1}, ValueError, "post_emb_norm must be true or false, not 1"),
    ({"dim_inn": 4}, TypeError, r"unknown argument 'dim_inn'; did you mean 'dim_in'\?"),
    ({"num_tokens": 4}, TypeError, "unknown argument 'num_tokens'"),
]


@pytest.mark.parametrize(("kwargs", "error", "message"), WRONG)
def test_wrong_arguments_are_refused(kwargs: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        model(**kwargs)


def test_wrong_sequences_are_refused() -> None:
    with pytest.raises(TypeError, match=r"attn_layers must be a stack, as Decoder\(...\) is, not Linear"):
        model(torch.nn.Linear(2, 2))
    m = model()
    with pytest.raises(ValueError, match=r"x must be float \(batch, seq, 5\), not torch.float32 \(1, 3, 6\)"):
        m(torch.randn(1, 3, 6))
    with pytest.raises(ValueError, match=r"x must be float \(batch, seq, 5\), not torch.int64 \(1, 3, 5\)"):
        m(torch.ones(1, 3, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="the sequence has 9 tokens; max_seq_len is 8"):
        m(torch.randn(1, 9, 5))
    with pytest.raises(ValueError, match=r"mask must be \(1, 3\), not \(1, 4\)"):
        m(torch.randn(1, 3, 5), mask=torch.ones(1, 4, dtype=torch.bool))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_runs_in_its_type_and_copies_are_alike(dtype: torch.dtype) -> None:
    m = trainer(num_memory_tokens=1).to(dtype)
    x = torch.randn(2, 4, 5, dtype=dtype)
    assert m.net(x).dtype == dtype
    assert m.generate(x, 3).dtype == dtype
    assert torch.equal(copy.deepcopy(m)(x), m(x))


# Training ----------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_squared_error_of_the_next_vector() -> None:
    m = trainer()
    x = torch.randn(2, 7, 5)
    out = m.net(x[:, :-1])
    torch.testing.assert_close(m(x), ((out - x[:, 1:]) ** 2).sum() / (2 * 6 * 5))


def test_a_prediction_counts_where_it_is_made_from_a_real_vector() -> None:
    m = trainer()
    x = torch.randn(2, 7, 5)
    mask = torch.arange(7) < torch.tensor([[7], [3]])
    out = m.net(x[:, :-1], mask=mask[:, :-1])
    errors = ((out - x[:, 1:]) ** 2).mean(-1)
    torch.testing.assert_close(m(x, mask=mask), (errors[0].sum() + errors[1, :3].sum()) / 9)
    far = x.clone()
    far[1, 4:] = 1e6  # behind the last vector that counts
    torch.testing.assert_close(m(far, mask=mask), m(x, mask=mask))
    assert m(x, mask=torch.zeros_like(mask)).item() == 0


@pytest.mark.parametrize("by_vector", [False, True])
def test_a_loss_of_the_users_own(by_vector: bool) -> None:
    def absolute(out: Tensor, target: Tensor) -> Tensor:
        losses = (out - target).abs()
        return losses.sum(-1) if by_vector else losses

    m = ContinuousAutoregressiveWrapper(model(dim_out=5), loss_fn=absolute)
    x = torch.randn(2, 4, 5)
    error = (m.net(x[:, :-1]) - x[:, 1:]).abs()
    torch.testing.assert_close(m(x), error.sum(-1).mean() if by_vector else error.mean())
    scalar = ContinuousAutoregressiveWrapper(model(dim_out=5), loss_fn=F.mse_loss)
    with pytest.raises(ValueError, match=r"loss_fn must give losses \(2, 3, 5\), not \(\)"):
        scalar(x)


# Generation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kwargs", [{}, {"num_memory_tokens": 2}, {"scaled_sinu_pos_emb": True}])
@pytest.mark.parametrize("cache_kv", [True, False])
def test_generated_vectors_are_the_models_over_a_sliding_window(kwargs: dict[str, Any], cache_kv: bool) -> None:
    m = trainer(**kwargs)
    start = torch.randn(2, 3, 5)
    now = start
    with torch.no_grad():
        for _ in range(9):
            now = torch.cat((now, m.net(now[:, -8:])[:, -1:]), dim=1)
    torch.testing.assert_close(m.generate(start, 9, cache_kv=cache_kv), now[:, 3:], rtol=1e-4, atol=1e-5)


def test_a_start_may_be_one_row_and_longer_than_the_window() -> None:
    m = trainer()
    start = torch.randn(11, 5)
    assert m.generate(start[:1], 4).shape == (4, 5)
    assert m.generate(start, 0).shape == (0, 5)
    torch.testing.assert_close(m.generate(start, 3), m.generate(start[None, -8:], 3)[0])


def test_keys_and_values_are_computed_once_a_vector() -> None:
    m = trainer(Decoder(cross_attend=True, **SIZES))
    seen: list[int] = []
    m.net.attn_layers.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[1]))
    context = torch.randn(2, 4, 12)
    cached = m.generate(torch.randn(2, 3, 5), 5, context=context)
    assert cached.shape == (2, 5, 5)
    assert seen == [3, 1, 1, 1, 1]


def test_modes_are_as_they_were_and_nothing_is_dropped() -> None:
    m = trainer(emb_dropout=0.5).train()
    m.net.attn_layers.eval()
    start = torch.randn(1, 3, 5)
    assert torch.equal(m.generate(start, 4), m.generate(start, 4))
    assert m.training
    assert m.net.emb_dropout.training
    assert not m.net.attn_layers.training


def test_wrong_nets_and_starts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the model sees later vectors: a0 .* is not causal"):
        trainer(Encoder(**SIZES))
    with pytest.raises(ValueError, match="the model's outputs have 7 features and its inputs 5; they must agree"):
        trainer(dim_out=7)
    tokens = TransformerWrapper(num_tokens=5, max_seq_len=8, attn_layers=Decoder(**SIZES))
    with pytest.raises(TypeError, match="net must be a ContinuousTransformerWrapper, not TransformerWrapper"):
        ContinuousAutoregressiveWrapper(tokens)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"net must be a model over tokens, .* not ContinuousTransformerWrapper"):
        AutoregressiveWrapper(model())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pad_value has no meaning for vectors: hide padding with mask="):
        ContinuousAutoregressiveWrapper(model(dim_out=5), pad_value=1)
    m = trainer()
    with pytest.raises(ValueError, match=r"start must be \(n, 5\) or \(batch, n, 5\), n at least 1, not \(0, 5\)"):
        m.generate(torch.randn(0, 5), 3)
    with pytest.raises(ValueError, match="seq_len must be a whole number of at least 0, not -1"):
        m.generate(torch.randn(1, 5), -1)
    with pytest.raises(ValueError, match=r"x must be \(batch, 2 or more, 5\), not \(2, 1, 5\)"):
        m(torch.randn(2, 1, 5))
