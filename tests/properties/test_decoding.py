"""Decoding with a cache gives the numbers of one pass over the whole, whatever the model and however it is cut up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

import xt_blocks
from blockdsl.graph.state import why_not_rolling

from .models import SIZES, Model, close, context_for, cuts, examples, models, tokens

BATCH, SEQ = 3, 8


def decodable(model: Model) -> xt_blocks.TransformerWrapper:
    assume(model.graph.why_not_cached() is None)
    return model.model()


def decoded(
    model: xt_blocks.TransformerWrapper, x: Tensor, parts: list[int], mask: Tensor | None = None, **first: Any
) -> Tensor:
    prepended = first["prepend_embeds"].shape[1] if "prepend_embeds" in first else 0
    mems = first.get("mems")
    cache = model.new_cache(x.shape[0], x.shape[1] + (0 if mems is None else mems.length), prepended=prepended)
    out = []
    for i, part in enumerate(x.split(parts, dim=1)):
        seen = {} if mask is None else {"mask": mask.split(parts, dim=1)[i]}
        out.append(model(part, cache=cache, **seen, **(first if i == 0 else {})))
    return torch.cat(out, dim=1)


@examples(40)
@given(models(causal=True), cuts(SEQ), st.booleans())
def test_cached_is_uncached(drawn: Model, parts: list[int], masked_context: bool) -> None:
    model = decodable(drawn)
    x, first = tokens(BATCH, SEQ), context_for(model, BATCH)
    if "context" in first and masked_context:
        first["context_mask"] = torch.arange(5) < torch.tensor([[5], [2], [0]])
    with torch.no_grad():
        close(decoded(model, x, parts, **first), model(x, **first))


@examples(34)
@given(models(causal=True), cuts(SEQ), st.lists(st.integers(0, SEQ), min_size=BATCH, max_size=BATCH))
def test_cached_is_uncached_behind_padding_on_the_left(drawn: Model, parts: list[int], padding: list[int]) -> None:
    model = decodable(drawn)
    if model.num_memory_tokens:  # they stand right in front of the first real token, so the first step has one
        padding = [min(n, parts[0] - 1) for n in padding]
    x, first = tokens(BATCH, SEQ), context_for(model, BATCH)
    mask = torch.arange(SEQ) >= torch.tensor(padding)[:, None]
    with torch.no_grad():
        out = decoded(model, x, parts, mask=mask, **first)
        close(out[mask], model(x, mask=mask, **first)[mask])
        for row, n in enumerate(padding):
            if n < SEQ:
                own = {name: value[row : row + 1] for name, value in first.items()}
                close(out[row : row + 1, n:], model(x[row : row + 1, n:], **own))


@examples(27)
@given(models(causal=True), cuts(SEQ), st.integers(0, 2))
def test_cached_is_uncached_behind_prepended_embeddings(drawn: Model, parts: list[int], padding: int) -> None:
    model = decodable(drawn)
    prepended = torch.randn(BATCH, 3, model.emb_dim, dtype=torch.float64)
    first = {"prepend_embeds": prepended, **context_for(model, BATCH)}
    first["prepend_mask"] = torch.arange(3) >= torch.tensor([[0], [1], [padding]])
    x, mask = tokens(BATCH, SEQ), torch.ones(BATCH, SEQ, dtype=torch.bool)
    mask[1, : parts[0] - 1] = False
    both = torch.cat((first["prepend_mask"], mask), dim=1)
    with torch.no_grad():
        out, whole = decoded(model, x, parts, mask=mask, **first), model(x, mask=mask, **first)
    close(out[both], whole[both])


@examples(27)
@given(models(causal=True), cuts(SEQ), st.booleans())
def test_cached_is_uncached_behind_memories(drawn: Model, parts: list[int], masked: bool) -> None:
    drawn.around.setdefault("max_mem_len", 4)
    model = decodable(drawn)
    first = context_for(model, BATCH)
    earlier = torch.arange(5) >= torch.tensor([[0], [2], [5]]) if masked else None
    x = tokens(BATCH, SEQ)
    with torch.no_grad():
        _, mems = model(tokens(BATCH, 5), mask=earlier, return_mems=True, **first)
        close(decoded(model, x, parts, mems=mems, **first), model(x, mems=mems, **first))


@examples(17)
@given(models(causal=True), st.booleans(), st.sampled_from([6, 24]))
def test_prompts_of_different_lengths_go_on_as_each_alone(drawn: Model, cached: bool, window: int) -> None:
    drawn = drawn.without("return_only_embed", "logits_dim")
    drawn.around["max_seq_len"] = window
    model = decodable(drawn)
    if not model.num_memory_tokens and why_not_rolling(model.graph) is None:
        window = 99  # no token is lost past max_seq_len
    generator = xt_blocks.AutoregressiveWrapper(model)
    prompts = [tokens(1, n)[0] for n in (2, 5, 3)]
    first = context_for(model, BATCH)
    out = generator.generate(prompts, 5, temperature=0.0, cache_kv=cached, **first)
    for row, prompt in enumerate(prompts):
        own = {name: value[row : row + 1] for name, value in first.items()}
        alone = prompt[None]
        with torch.no_grad():  # the loop by hand
            for _ in range(5):
                token = model(alone[:, -window:], **own)[:, -1].argmax(dim=-1, keepdim=True)
                alone = torch.cat((alone, token), dim=1)
        assert torch.equal(out[row], alone[0, len(prompt) :])


@examples(27)
@given(models(around=False, causal=True), cuts(SEQ))
def test_the_cache_has_the_bytes_that_the_graph_says(drawn: Model, parts: list[int]) -> None:
    assume(drawn.graph.why_not_cached() is None)
    stack = drawn.stack(torch.bfloat16)
    cache = stack.new_cache(2, SEQ)
    x, first = torch.randn(2, SEQ, SIZES["dim"], dtype=torch.bfloat16), context_for(stack, 2, 3)
    with torch.no_grad():
        for i, part in enumerate(x.split(parts, dim=1)):
            stack(part, cache=cache, **(first if i == 0 else {}))
    assert cache.bytes() == drawn.graph.kv_cache_bytes(SEQ, batch=2, dtype="bfloat16", context_len=3)


def test_a_model_that_sees_later_tokens_says_so() -> None:
    model = Model("a(causal=false) f", {"causal": True}, {}, 0).model()
    with pytest.raises(ValueError, match=r"no cache can be kept: a0 .self-attention. is not causal"):
        model.new_cache(1)
