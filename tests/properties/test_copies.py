"""Copies of a model, its precision, and the ways to write it down."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

import blockdsl
import xt_blocks
from blockdsl.registry.options import spell

from .models import SIZES, TOKENS, Model, close, compiles, context_for, examples, models, stirred, tokens


def saved(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "save": saved,
}


@examples(34)
@given(models(), st.sampled_from(sorted(COPIES)))
def test_copies_are_the_same_and_independent(drawn: Model, how: str) -> None:
    model = drawn.model()
    x, beside = tokens(2, 5), context_for(model, 2)
    with torch.no_grad():
        before = model(x, **beside)
        other = COPIES[how](model)
        assert torch.equal(other(x, **beside), before)
        assert [*other.state_dict()] == [*model.state_dict()]
        assert other.graph == model.graph
        shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in other.parameters()}
        assert not shared
        for parameter in other.parameters():
            parameter.fill_(0.5)
        assert torch.equal(model(x, **beside), before)


@examples(27)
@given(models())
def test_a_state_dict_makes_another_model_the_same(drawn: Model) -> None:
    model = drawn.model()
    x, beside = tokens(2, 5), context_for(model, 2)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = Model(drawn.text, drawn.settings, drawn.around, drawn.seed + 1).model()
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    with torch.no_grad():
        assert torch.equal(other(x, **beside), model(x, **beside))


@examples(34)
@given(models(), st.sampled_from([torch.bfloat16, torch.float16, torch.float64]))
def test_every_precision_runs_in_its_own_type(drawn: Model, dtype: torch.dtype) -> None:
    model = drawn.model(dtype)
    exact = copy.deepcopy(model).double()
    x, mask = tokens(2, 6), torch.arange(6) < torch.tensor([[6], [3]])
    beside: dict[str, Any] = context_for(model, 2)
    with torch.no_grad():
        out = model(x, mask=mask, return_embeddings=True, **beside)
        beside = {name: value.double() for name, value in beside.items()}
        want = exact(x, mask=mask, return_embeddings=True, **beside)[mask]
    assert out.dtype == dtype
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert out.isfinite().all()
    # rounding decides which scores are the largest, the signs of those near zero, and which experts
    said = f"{drawn.settings} {drawn.text}"
    if not any(name in said for name in ("sparse_topk", "cog_signed")) and "e" not in drawn.kinds:
        # bfloat16 has two to three digits, and each block loses some
        loss = {torch.bfloat16: 0.3, torch.float16: 0.04, torch.float64: 1e-9}[dtype]
        assert (out[mask].double() - want).norm() <= loss * want.norm()


@examples(20)
@given(models(causal=True), st.sampled_from([torch.bfloat16, torch.float16]))
def test_low_precision_trains_and_decodes(drawn: Model, dtype: torch.dtype) -> None:
    model = drawn.model(dtype)
    x, beside = tokens(2, 6), context_for(model, 2)
    out = model(x, **beside)
    out.float().pow(2).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assume(model.graph.why_not_cached() is None)
    cache = model.new_cache(2)
    with torch.no_grad():
        parts = [model(part, cache=cache, **(beside if i == 0 else {})) for i, part in enumerate(x.split(2, dim=1))]
    assert {part.dtype for part in parts} == {dtype}
    assert torch.cat(parts, dim=1).isfinite().all()


@examples(34)
@given(models(around=False), st.booleans())
def test_fused_and_explicit_attention_agree(drawn: Model, masked: bool) -> None:
    assume("flash" not in drawn.text and "attn_flash" not in drawn.settings and drawn.kinds & {"a", "c"})
    fused, explicit = drawn.stack(), drawn.stack(attn_flash=False)
    x, beside = torch.randn(2, 7, SIZES["dim"], dtype=torch.float64), context_for(fused, 2)
    mask = torch.arange(7) >= torch.tensor([[0], [4]]) if masked else None
    with torch.no_grad():
        close(fused(x, mask=mask, **beside), explicit(x, mask=mask, **beside), 1e-6)


@examples(27)
@given(models(), st.booleans())
def test_looking_inside_changes_nothing_and_shows_what_was_attended(drawn: Model, masked: bool) -> None:
    model = drawn.without("num_memory_tokens").model()
    x, beside = tokens(2, 6), context_for(model, 2)
    mask = torch.arange(6) < torch.tensor([[6], [4]]) if masked else None
    with torch.no_grad():
        out, record = model(x, mask=mask, return_intermediates=True, **beside)
        close(out, model(x, mask=mask, **beside), 1e-6)
    assert [*record.streams] == [step.node for step in model.attn_layers.plan if step.block is not None]
    for node, scores in record.attention.items():
        attrs = model.graph.nx.nodes[node]
        signed = attrs["options"].get("cog_signed")
        total = (scores.weights.abs() if signed else scores.weights).sum(dim=-1)
        if mask is not None:  # padding that sees no token has no weights: a window may hold padding alone
            padded = total[1, ..., 4:]
            total[1, ..., 4:] = torch.where(padded == 0, 1.0, padded)
        if attrs["options"]["sigmoid"]:
            assert total.gt(0).all()  # each weight is for itself
        elif attrs["options"]["sink"] or attrs["options"]["add_zero_kv"]:
            assert (total.gt(0) & total.le(1)).all()  # the sink or the zero key has the rest
        else:
            close(total, torch.ones_like(total), 1e-6)
        if attrs["kind"] == "a":
            own = scores.weights[..., attrs["options"]["num_mem_kv"] :]
            if mask is not None:
                assert (own[1, ..., 4:] == 0).all()
            if attrs["options"]["causal"]:
                assert (own.triu(1) == 0).all()


# Spellings ---------------------------------------------------------------------------------------------------------


def numbers(module: Any, x: Tensor, beside: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return module(x, **beside)


@examples(40)
@given(models())
def test_every_spelling_is_the_same_model(drawn: Model) -> None:
    around = TOKENS | drawn.around
    stack = drawn.settings
    text = f"set {', '.join(f'{n}={spell(v)}' for n, v in (SIZES | stack | around).items())}; {drawn.text}"
    graph = blockdsl.compile(text)
    torch.manual_seed(3)
    layers = xt_blocks.AttentionLayers(pattern=drawn.text, **(SIZES | stack))
    torch.manual_seed(3)
    spelled = {
        "text": xt_blocks.lower(graph),
        "canonical text": xt_blocks.lower(blockdsl.compile(graph.pattern, **(SIZES | stack | around))),
        "json": xt_blocks.lower(blockdsl.BlockGraph.from_json(graph.to_json())),
        "keywords": xt_blocks.TransformerWrapper(attn_layers=layers, **around),
        "without and with": xt_blocks.lower(graph.stack_alone().with_tokens(**graph.model_options())),
    }
    first = stirred(spelled["text"]).double().eval()
    x = tokens(2, 5)
    beside = context_for(first, 2)
    want = numbers(first, x, beside)
    for name, other in spelled.items():
        other = other.double().eval()
        assert [*other.state_dict()] == [*first.state_dict()], name
        other.load_state_dict(first.state_dict())
        assert torch.equal(numbers(other, x, beside), want), name


@pytest.mark.parametrize("ordering", [{"depth": 2, "macaron": True}, {"depth": 2, "sandwich_coef": 1}])
@examples(10)
@given(models(kinds="af", around=False))
def test_ordering_keywords_and_their_pattern_have_all_other_settings(ordering: dict[str, Any], drawn: Model) -> None:
    torch.manual_seed(3)
    # keywords that no block of this order reads are refused, which tests/blocks/test_layers.py has
    settings = {name: value for name, value in drawn.settings.items() if not name.startswith("cross_")}
    assume(compiles(lambda _: "a f", settings, {}))  # blocks that read them all may refuse two together
    ours = xt_blocks.AttentionLayers(**(SIZES | settings | ordering)).double().eval()
    theirs = xt_blocks.lower(blockdsl.compile(ours.pattern, **(SIZES | settings))).double().eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, SIZES["dim"], dtype=torch.float64)
    beside = context_for(ours, 2)
    assert torch.equal(numbers(ours, x, beside), numbers(theirs, x, beside))
