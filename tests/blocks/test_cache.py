"""Decoding with a cache gives the numbers of a pass over the whole, for every option, however it is cut up."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import blockdsl
import xt_blocks

from .variants import SIZES, VARIANTS, inputs, stack

CUTS = [[1] * 9, [5, 1, 1, 1, 1], [3, 4, 2], [9]]


def decoded(model: xt_blocks.Stack, x: Tensor, cuts: list[int], **kwargs: Tensor) -> tuple[Tensor, xt_blocks.Cache]:
    cache = model.new_cache(x.shape[0], x.shape[1])
    mask = kwargs.pop("mask", None)
    out, start = [], 0
    for i, size in enumerate(cuts):
        part = slice(start, start + size)
        now = kwargs if i == 0 else {}  # a context is read once
        out.append(model(x[:, part], mask=None if mask is None else mask[:, part], cache=cache, **now))
        start += size
    return torch.cat(out, dim=1), cache


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_cached_is_uncached(name: str, cuts: list[int]) -> None:
    model = stack(name)
    x, extra = inputs(model, seq=9)
    out, _ = decoded(model, x, cuts, **extra)
    torch.testing.assert_close(out, model(x, **extra), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_cached_is_uncached_under_padding_and_a_context_mask(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model, seq=9)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, :3] = False
    if extra:
        extra["context_mask"] = torch.tensor([[True] * 5, [True, False, True, False, False]])
    out, _ = decoded(model, x, [5, 1, 1, 2], mask=mask, **extra)
    torch.testing.assert_close(out[mask], model(x, mask=mask, **extra)[mask], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_left_padding_changes_nothing_while_decoding(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model, batch=1, seq=6)
    padded = torch.cat((torch.randn(1, 3, SIZES["dim"]), x), dim=1)
    mask = torch.arange(9)[None] >= 3
    out, _ = decoded(model, padded, [5, 1, 1, 2], mask=mask, **extra)
    torch.testing.assert_close(out[:, 3:], model(x, **extra), rtol=1e-4, atol=1e-5)


def test_every_node_has_room_of_its_own_allocated_once() -> None:
    model = stack("ties")
    x, _ = inputs(model, seq=9)
    cache = model.new_cache(2, 20)
    model(x[:, :1], cache=cache)
    before = {node: cache.slot(node).stored()[0].data_ptr() for node in ("a0", "a2", "a4")}
    assert len(set(before.values())) == 3
    for i in range(1, 9):
        model(x[:, i : i + 1], cache=cache)
    assert {node: cache.slot(node).stored()[0].data_ptr() for node in before} == before
    assert cache.slot("a0").stored()[0].shape == (2, 3, 20, 8)
    assert cache.bytes() == model.graph.kv_cache_bytes(20, batch=2)


def test_a_contexts_keys_are_computed_once() -> None:
    model = stack("cross")
    x, extra = inputs(model, seq=4)
    cache = model.new_cache(2, 4)
    model(x[:, :2], cache=cache, **extra)
    calls = []
    layer = model.blocks["c1"].layer
    layer.to_kv.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr,operator]
    model(x[:, 2:], cache=cache)
    assert not calls


def test_what_a_cache_has_no_room_for_is_refused() -> None:
    model = stack("plain")
    x, _ = inputs(model, seq=4)
    cache = model.new_cache(2, 5)
    model(x, cache=cache)
    with pytest.raises(ValueError, match="room for 5 tokens and holds 4; 2 more do not fit"):
        model(x[:, :2], cache=cache)
    with pytest.raises(ValueError, match="holds 2 rows, not 1"):
        model(x[:1, :1], cache=cache)


@pytest.mark.parametrize(
    ("pattern", "causal", "reason"),
    [
        ("a f", False, "a0 .self-attention. is not causal"),
        ("f>>1", False, "shifts tokens from both sides"),
        ("a a(causal=false)", True, "a1 .self-attention. is not causal"),
    ],
)
def test_a_stack_that_sees_later_tokens_has_no_cache(pattern: str, causal: bool, reason: str) -> None:
    model = xt_blocks.lower(blockdsl.compile(pattern, causal=causal, **SIZES))
    with pytest.raises(ValueError, match=reason):
        model.new_cache(1, 4)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["plain", "rotary", "shift 1"])
@pytest.mark.parametrize("cuts", [[2, 2, 2, 2], [1] * 8, [5, 3]], ids=str)
def test_left_padding_may_end_in_any_step(name: str, cuts: list[int]) -> None:
    model = xt_blocks.TransformerWrapper(num_tokens=17, max_seq_len=8, attn_layers=stack(name)).eval()
    x = torch.randint(0, 17, (3, 8))
    mask = torch.arange(8) >= torch.tensor([[0], [3], [6]])
    cache, out = model.new_cache(3), []
    for part, seen in zip(x.split(cuts, 1), mask.split(cuts, 1), strict=True):
        out.append(model(part, mask=seen, cache=cache))
    torch.testing.assert_close(torch.cat(out, 1)[mask], model(x, mask=mask)[mask], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("given", [(True, False, True), (False, True, False), (False, False, True)])
def test_a_mask_may_be_given_in_some_steps_only(given: tuple[bool, ...]) -> None:
    model = xt_blocks.TransformerWrapper(num_tokens=17, max_seq_len=9, attn_layers=stack("plain")).eval()
    x = torch.randint(0, 17, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, [0, 3, 6]] = False  # the first token of each step, where that step has a mask
    mask |= ~torch.tensor(given).repeat_interleave(3)
    cache, out = model.new_cache(2), []
    for part, seen, has in zip(x.split(3, 1), mask.split(3, 1), given, strict=True):
        out.append(model(part, mask=seen if has else None, cache=cache))
    torch.testing.assert_close(torch.cat(out, 1)[mask], model(x, mask=mask)[mask], rtol=1e-5, atol=2e-6)


def test_a_step_that_failed_leaves_the_masks_of_the_cache_alone() -> None:
    model = stack("plain")
    x, _ = inputs(model, seq=6)
    mask = torch.arange(6) >= torch.tensor([[0], [2]])
    cache = model.new_cache(2, 6)
    model(x[:, :3], mask=mask[:, :3], cache=cache)
    broken = model.blocks["f1"].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(x[:, 3:], mask=mask[:, 3:], cache=cache)
    broken.remove()
    out = model(x[:, 3:], mask=mask[:, 3:], cache=cache)
    torch.testing.assert_close(out, model(x, mask=mask)[:, 3:], rtol=1e-5, atol=2e-6)


def test_a_step_that_failed_can_be_run_again() -> None:
    model = stack("shift 2")
    x, _ = inputs(model, seq=6)
    cache = model.new_cache(2, 6)
    first = model(x[:, :3], cache=cache)
    last = model.plan[-1].block
    hook = model.blocks[last].register_forward_pre_hook(lambda *_: 1 / 0)  # type: ignore[index]
    with pytest.raises(ZeroDivisionError):
        model(x[:, 3:], cache=cache)
    hook.remove()
    out = torch.cat((first, model(x[:, 3:], cache=cache)), dim=1)
    torch.testing.assert_close(out, model(x), rtol=1e-5, atol=2e-6)


def test_a_context_is_given_once() -> None:
    model = stack("cross")
    x, extra = inputs(model, seq=4)
    cache = model.new_cache(2, 4)
    model(x[:, :2], cache=cache, **extra)
    with pytest.raises(ValueError, match="the cache holds the context of its first step; later steps take none"):
        model(x[:, 2:], cache=cache, **extra)
