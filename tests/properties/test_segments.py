"""Segments with memories are one long pass, for every model without absolute positions."""

from __future__ import annotations

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from .models import Model, close, context_for, cuts, examples, models, tokens

BATCH, SEQ = 3, 9


def recurrent(drawn: Model, most: int = 99) -> Model:
    """The model with memories of so many tokens and no absolute positions."""
    without = ("shift_mem_down", "scaled_sinu_pos_emb", "pos_offset")
    around = {name: value for name, value in drawn.around.items() if name not in without}
    return Model(drawn.text, drawn.settings, around | {"max_mem_len": most, "use_abs_pos_emb": False}, drawn.seed)


@examples(40)
@given(models(causal=True), cuts(SEQ), st.lists(st.booleans(), min_size=BATCH * SEQ, max_size=BATCH * SEQ))
def test_segments_are_one_long_pass(drawn: Model, parts: list[int], real: list[bool]) -> None:
    assume(drawn.graph.sees_later() is None)
    model = recurrent(drawn).model()
    x, beside = tokens(BATCH, SEQ), context_for(model, BATCH)
    mask = torch.tensor(real).view(BATCH, SEQ)
    mask[0] = True
    if model.num_memory_tokens:  # they stand in front of the first real token, which the first segment then has
        mask[:, parts[0] - 1] = True
    out, mems = [], None
    with torch.no_grad():
        for part, seen in zip(x.split(parts, dim=1), mask.split(parts, dim=1), strict=True):
            segment, mems = model(part, mask=seen, mems=mems, return_mems=True, **beside)
            out.append(segment)
        whole = model(x, mask=mask, **beside)
    assert mems is not None
    close(torch.cat(out, dim=1)[mask], whole[mask])


@examples(27)
@given(models(causal=True), cuts(SEQ), st.integers(1, 2))
def test_prepended_embeddings_are_remembered(drawn: Model, parts: list[int], padding: int) -> None:
    assume(drawn.graph.sees_later() is None)
    model = recurrent(drawn).model()
    x, beside = tokens(BATCH, SEQ), context_for(model, BATCH)
    first = {
        "prepend_embeds": torch.randn(BATCH, 3, model.emb_dim, dtype=torch.float64),
        "prepend_mask": torch.arange(3) >= torch.tensor([[0], [padding], [1]]),
    }
    out, mems = [], None
    with torch.no_grad():
        for i, part in enumerate(x.split(parts, dim=1)):
            segment, mems = model(part, mems=mems, return_mems=True, **beside, **(first if i == 0 else {}))
            out.append(segment[:, -part.shape[1] :])
        whole = model(x, **first, **beside)
    close(torch.cat(out, dim=1), whole[:, -SEQ:])


@examples(27)
@given(models(), st.integers(1, 6))
def test_memories_that_are_masked_whole_are_none_at_all(drawn: Model, length: int) -> None:
    assume(drawn.graph.why_not_segmented() is None)
    drawn = drawn.without("shift_mem_down")
    if drawn.graph.sees_later() is not None:  # memory tokens that saw nothing are not those that see x
        drawn = drawn.without("num_memory_tokens")
    model = Model(drawn.text, drawn.settings, drawn.around | {"max_mem_len": 4}, drawn.seed).model()
    x, beside = tokens(2, 6), context_for(model, 2)
    hidden = torch.zeros(2, length, dtype=torch.bool)
    with torch.no_grad():
        _, mems = model(tokens(2, length), mask=hidden, return_mems=True, **beside)
        close(model(x, mems=mems, **beside), model(x, **beside))


@examples(27)
@given(models(), st.sampled_from([1, 3]), cuts(SEQ))
def test_memories_have_the_last_tokens_and_no_gradient(drawn: Model, most: int, parts: list[int]) -> None:
    assume(drawn.graph.why_not_segmented() is None)
    model = Model(drawn.text, drawn.settings, drawn.around | {"max_mem_len": most}, drawn.seed).model().train()
    beside, mems, seen = context_for(model, BATCH), None, 0
    for part in tokens(BATCH, SEQ).split(parts, dim=1):
        _, mems = model(part, mems=mems, return_mems=True, **beside)
        seen += part.shape[1]
        assert mems.length == min(most, seen) + model.num_memory_tokens
        for step in model.attn_layers.plan:
            if "memory" in step.inputs:
                assert mems.streams[step.node].shape == (BATCH, mems.length, model.dim)
        assert not any(stream.requires_grad for stream in mems.streams.values())
