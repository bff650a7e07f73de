"""What is masked, later, or in another row of the batch leaves no trace, whatever the model."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from .models import SIZES, Model, close, context_for, examples, models, tokens

DIM = SIZES["dim"]
HUGE = 1e6


@examples(40)
@given(models(), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2))
def test_padding_on_either_side_changes_nothing(drawn: Model, left: int, right: int, further: int) -> None:
    model = drawn.model()
    x, padding = tokens(2, 6), (tokens(2, left), tokens(2, right))
    mask = torch.zeros(2, left + 6 + right, dtype=torch.bool)
    mask[:, left : left + 6] = True
    given = context_for(model, 2)
    padded = {**given}
    if "context" in given:
        junk = HUGE * torch.randn(2, further, given["context"].shape[-1], dtype=torch.float64)
        longer = torch.cat((given["context"], junk), dim=1)
        padded |= {"context": longer, "context_mask": (torch.arange(5 + further) < 5).expand(2, -1)}
    with torch.no_grad():
        out = model(torch.cat((padding[0], x, padding[1]), dim=1), mask=mask, **padded)
        close(out[:, left : left + 6], model(x, **given))


@examples(27)
@given(models(), st.integers(0, 3), st.integers(0, 2), st.integers(0, 2))
def test_padding_around_prepended_embeddings_changes_nothing(drawn: Model, left: int, front: int, back: int) -> None:
    model = drawn.model()
    x, prepended = tokens(2, 6), torch.randn(2, 3, model.emb_dim, dtype=torch.float64)
    junk = HUGE * torch.randn(2, front + back, model.emb_dim, dtype=torch.float64)
    given = context_for(model, 2)
    padded = torch.cat((junk[:, :front], prepended, junk[:, front:]), dim=1)
    prepend_mask = torch.tensor([False] * front + [True] * 3 + [False] * back).expand(2, -1)
    mask = (torch.arange(6 + left) >= left).expand(2, -1)
    with torch.no_grad():
        alone = model(x, prepend_embeds=prepended, **given)
        out = model(
            torch.cat((tokens(2, left), x), dim=1), mask=mask, prepend_embeds=padded, prepend_mask=prepend_mask, **given
        )
    real = torch.cat((prepend_mask, mask), dim=1)
    close(out[real].view_as(alone), alone)


@examples(40)
@given(models(around=False), st.lists(st.booleans(), min_size=14, max_size=14), st.sampled_from([1.0, 1e4, 1e15]))
def test_what_is_masked_may_be_anything(drawn: Model, masked: list[bool], size: float) -> None:
    stack = drawn.stack()
    x = torch.randn(2, 7, DIM, dtype=torch.float64)
    mask = torch.tensor(masked).view(2, 7)
    given: dict[str, Any] = context_for(stack, 2)
    changed: dict[str, Any] = dict(given)
    if "context" in given:
        context_mask = torch.tensor([[True, False, True, True, False], [False] * 5])
        given["context_mask"] = changed["context_mask"] = context_mask
        changed["context"] = torch.where(
            context_mask[..., None], given["context"], size * torch.randn_like(given["context"])
        )
    other = torch.where(mask[..., None], x, size * torch.randn_like(x))
    with torch.no_grad():
        out, same = stack(x, mask=mask, **given), stack(other, mask=mask, **changed)
    assert out.isfinite().all()
    assert same[mask].isfinite().all()
    close(same[mask], out[mask])


@examples(34)
@given(models(), st.booleans(), st.booleans())
def test_a_row_that_sees_nothing_is_finite(drawn: Model, no_context: bool, no_pairs: bool) -> None:
    model = drawn.model().train()
    x = tokens(3, 6)
    mask = torch.arange(6) < torch.tensor([[6], [3], [0]])
    beside: dict[str, Any] = context_for(model, 3)
    if "context" in beside:
        beside["context"].requires_grad_()
        beside["context_mask"] = torch.arange(5) < torch.tensor([[0 if no_context else 5], [0], [2]])
    if no_pairs and model.attn_layers.reads.attends:
        beside["attn_mask"] = torch.zeros(6, 6, dtype=torch.bool)
    prepended = torch.randn(3, 2, model.emb_dim, dtype=torch.float64, requires_grad=True)
    prepend_mask = torch.tensor([[True, True], [False, True], [False, False]])
    out = model(x, mask=mask, prepend_embeds=prepended, prepend_mask=prepend_mask, **beside)
    assert out.isfinite().all()
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert prepended.grad is not None
    assert prepended.grad.isfinite().all()
    if "context" in beside:
        assert beside["context"].grad.isfinite().all()


@examples(27)
@given(models(), st.booleans())
def test_rows_do_not_affect_each_other(drawn: Model, masked: bool) -> None:
    model = drawn.model()
    rows: dict[str, Any] = {"x": tokens(3, 6), **context_for(model, 3)}
    rows["prepend_embeds"] = torch.randn(3, 2, model.emb_dim, dtype=torch.float64)
    if masked:
        rows["mask"] = torch.arange(6) >= torch.tensor([[0], [2], [6]])
        rows["prepend_mask"] = torch.tensor([[True, True], [False, True], [True, False]])
        if "context" in rows:
            rows["context_mask"] = torch.arange(5) < torch.tensor([[5], [2], [0]])
    with torch.no_grad():
        together = model(**rows)
        for row in range(3):
            alone = model(**{name: value[row : row + 1] for name, value in rows.items()})
            close(together[row : row + 1], alone, 1e-6)


@examples(34)
@given(models(causal=True, around=False), st.integers(1, 6))
def test_no_gradient_comes_from_a_later_token(drawn: Model, cut: int) -> None:
    assume(drawn.graph.sees_later() is None)
    stack = drawn.stack()
    x = torch.randn(2, 7, DIM, dtype=torch.float64, requires_grad=True)
    out = stack(x, **context_for(stack, 2))
    (out[:, :cut] * torch.randn_like(out[:, :cut])).sum().backward()
    assert x.grad is not None
    assert (x.grad[:, cut:] == 0).all()
    assert (x.grad[:, :cut] != 0).any()


@examples(27)
@given(models(kinds="af", around=False), st.integers(0, 2**16))
def test_masks_of_pairs_of_any_rank_and_of_padding_are_one_thing(drawn: Model, seed: int) -> None:
    stack = drawn.stack()
    assume(stack.reads.attends)
    x = torch.randn(2, 6, DIM, dtype=torch.float64)
    torch.manual_seed(seed)
    pairs = torch.rand(6, 6) < 0.6
    with torch.no_grad():
        beside = context_for(stack, 2)
        out = stack(x, attn_mask=pairs, **beside)
        assert torch.equal(stack(x, attn_mask=pairs.expand(2, 1, 6, 6), **beside), out)
        assert torch.equal(stack(x, attn_mask=pairs.expand(1, 6, 6), **beside), out)
        seen = torch.rand(2, 6) < 0.6
        hidden = stack(x, self_attn_context_mask=seen, **beside)
        close(hidden, stack(x, attn_mask=seen[:, None, None].expand(2, 1, 6, 6), **beside))


@examples(20)
@given(models(), st.sampled_from([0, 1]), st.sampled_from([0, 1, 3]), st.booleans())
def test_there_may_be_no_token_and_no_context(drawn: Model, seq: int, context: int, masked: bool) -> None:
    model = drawn.model()
    x, beside = tokens(2, seq), context_for(model, 2, context)
    mask = {"mask": torch.ones(2, seq, dtype=torch.bool)} if masked else {}
    prepended = torch.randn(2, 2, model.emb_dim, dtype=torch.float64)
    with torch.no_grad():
        out = model(x, **mask, **beside)
        assert out.shape[:2] == (2, seq)
        assert out.isfinite().all()
        assert model(x, prepend_embeds=prepended, **mask, **beside).shape[:2] == (2, 2 + seq)
        if "context" in beside and not context:
            hidden = beside | {"context": context_for(model, 2)["context"]}
            close(model(x, **mask, **hidden, context_mask=torch.zeros(2, 5, dtype=torch.bool)), out)
