"""Recurrence over segments: with memories long enough, segments are one long pass."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

import xt_blocks
from xt_blocks.runtime.intermediates import Intermediates
from xt_blocks.runtime.memories import Memories

from .variants import SIZES, VARIANTS, inputs, stack


def in_segments(
    model: xt_blocks.Stack, x: Tensor, cuts: list[int], most: int = 99, mask: Tensor | None = None, **extra: Any
) -> tuple[Tensor, Memories | None]:
    out, mems = [], None
    for i, part in enumerate(x.split(cuts, dim=1)):
        seen = None if mask is None else mask.split(cuts, dim=1)[i]
        record = Intermediates()
        out.append(model(part, mems=mems, mask=seen, intermediates=record, **extra))
        mems = model.remember(mems, record, seen, most)
    return torch.cat(out, dim=1), mems


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("cuts", [[4, 4, 1], [1] * 9, [3, 6]], ids=str)
def test_segments_are_one_long_pass(name: str, cuts: list[int]) -> None:
    model = stack(name)
    x, extra = inputs(model, seq=9)
    out, mems = in_segments(model, x, cuts, **extra)
    torch.testing.assert_close(out, model(x, **extra), rtol=1e-5, atol=3e-6)
    assert mems is not None
    assert mems.length == 9


@pytest.mark.parametrize("name", VARIANTS)
def test_padding_in_a_segment_is_not_remembered(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model, seq=9)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, 2:4] = False
    mask[1, :5] = False
    out, _ = in_segments(model, x, [4, 3, 2], mask=mask, **extra)
    torch.testing.assert_close(out[mask], model(x, mask=mask, **extra)[mask], rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_memories_stand_in_front_of_a_cache(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model, seq=9)
    record = Intermediates()
    model(x[:, :4], intermediates=record, **extra)
    mems = model.remember(None, record, None, 99)
    cache = model.new_cache(2, 9)
    parts = [model(x[:, 4:7], mems=mems, cache=cache, **extra), *(model(x[:, i : i + 1], cache=cache) for i in (7, 8))]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(x, **extra)[:, 4:], rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("name", ["plain", "rotary", "shift 2", "T5 bias", "memory kv", "ALiBi"])
def test_memories_that_are_masked_whole_are_none_at_all(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model)
    hidden = torch.zeros(2, 5, dtype=torch.bool)
    record = Intermediates()
    model(torch.randn(2, 5, SIZES["dim"]), mask=hidden, intermediates=record, **extra)
    mems = model.remember(None, record, hidden, 99)
    torch.testing.assert_close(model(x, mems=mems, **extra), model(x, **extra), rtol=1e-5, atol=3e-6)


def test_only_the_last_tokens_are_remembered_and_a_window_needs_no_more() -> None:
    model = stack("window")  # two attentions back by two tokens each
    x, _ = inputs(model, seq=12)
    out, mems = in_segments(model, x, [3] * 4, most=2)
    assert mems is not None
    assert mems.length == 2
    assert {stream.shape[1] for stream in mems.streams.values()} == {2}
    torch.testing.assert_close(out, model(x), rtol=1e-5, atol=3e-6)
    short, _ = in_segments(model, x, [3] * 4, most=1)
    assert not torch.allclose(short, model(x), atol=1e-3)


def test_no_gradient_flows_into_an_earlier_segment() -> None:
    model = stack("rotary")
    first, second = (torch.randn(2, 4, SIZES["dim"], requires_grad=True) for _ in range(2))
    record = Intermediates()
    model(first, intermediates=record)
    mems = model.remember(None, record, None, 99)
    model(second, mems=mems).sum().backward()
    assert first.grad is None
    assert second.grad is not None


def test_memories_copy_and_pickle() -> None:
    model = stack("shift 1")
    x, _ = inputs(model)
    _, mems = in_segments(model, x, [4, 3])
    for other in (copy.deepcopy(mems), pickle.loads(pickle.dumps(mems))):
        assert torch.equal(model(x, mems=other), model(x, mems=mems))


def test_wrong_memories_are_refused() -> None:
    model = stack("plain")
    x, _ = inputs(model)
    _, mems = in_segments(model, x, [7])
    with pytest.raises(ValueError, match="mems have 2 rows, not 3"):
        model(torch.randn(3, 4, SIZES["dim"]), mems=mems)
    with pytest.raises(TypeError, match="mems must be the Memories of an earlier segment, not dict"):
        model(x, mems={"a0": x})
    with pytest.raises(ValueError, match="a list of mems must be 2 tensors"):
        model(x, mems=[x])
    cache = model.new_cache(2, 20)
    model(x, mems=mems, cache=cache)
    with pytest.raises(ValueError, match="mems come before the cache's first step"):
        model(x[:, :1], mems=mems, cache=cache)
    with pytest.raises(ValueError, match="is for 9 tokens and holds 0; 14 more"):
        model(x, mems=mems, cache=model.new_cache(2, 9))
