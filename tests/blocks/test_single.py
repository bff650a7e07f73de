"""Values summed for a single query: what a product in float64 gives, from wherever the values lie."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from xt_blocks.kernels import onednn, sdpa, table
from xt_blocks.kernels import single_query as single

from .variants import VARIANTS, inputs, stack


def cached(batch: int, heads: int, keys: int, features: int) -> Tensor:
    """Of a cache, with no number behind the keys."""
    out = torch.full((batch, heads, keys + 5, features), torch.nan)
    out[:, :, :keys] = torch.randn(batch, heads, keys, features)
    return out


PLACES = {
    "a cache": lambda *size: cached(*size)[:, :, : size[2]],
    "a window of a cache": lambda *size: torch.cat((cached(*size)[:, :, -3:], cached(*size)), dim=2)[
        :, :, 3 : size[2] + 3
    ],
    "by themselves": lambda *size: torch.randn(size),
    "tokens first": lambda *size: torch.randn(size[0], size[2], size[1], size[3]).transpose(1, 2),
    "one head for all": lambda *size: torch.randn(size[0], 1, *size[2:]).expand(size),
    "every other row": lambda *size: torch.randn(2 * size[0], *size[1:])[::2],
    "every other feature": lambda *size: torch.randn(*size[:3], 2 * size[3])[..., ::2],
    "part of the features": lambda *size: torch.randn(*size[:3], size[3] + 1)[..., 1:],
}


@pytest.mark.parametrize("keys", [1, 9])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("place", PLACES)
def test_it_is_the_product(place: str, batch: int, keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "BEATS_MKL", True)
    v = PLACES[place](batch, 4, keys, 6)
    assert v.shape == (batch, 4, keys, 6)
    weights = torch.randn(batch, 4, 1, keys)
    with torch.no_grad():
        out = single.weighted_sum(weights, v, {})
    torch.testing.assert_close(out.double(), weights.double() @ v.double(), rtol=1e-5, atol=1e-5)


def test_a_cache_is_read_as_a_table_whose_rows_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "BEATS_MKL", True)
    bag, ran = torch.embedding_bag, []
    monkeypatch.setattr(torch, "embedding_bag", lambda *args: ran.append(args[1]) or bag(*args))
    known: single.Tables = {}
    weights = torch.randn(2, 4, 1, 9)
    with torch.no_grad():
        for _ in range(2):
            single.weighted_sum(weights, PLACES["a cache"](2, 4, 9, 6), known)
    assert len(ran) == 2
    assert ran[0] is ran[1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_and_gradients_take_the_product(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "BEATS_MKL", True)
    monkeypatch.setattr(torch, "embedding_bag", None)
    weights, v = torch.randn(2, 4, 1, 9, dtype=dtype), torch.randn(2, 4, 9, 6, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(single.weighted_sum(weights, v, {}), weights @ v)
    v = v.float().requires_grad_()
    out = single.weighted_sum(weights.float(), v, {})
    (gradient,) = torch.autograd.grad(out.sum(), v)
    torch.testing.assert_close(gradient, weights.float().transpose(2, 3).expand(2, 4, 9, 6))


def test_a_counter_of_flops_sees_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "BEATS_MKL", True)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        single.weighted_sum(torch.randn(2, 4, 1, 9), torch.randn(2, 4, 9, 6), {})
    assert counter.get_total_flops() == 2 * 2 * 4 * 9 * 6


@pytest.mark.parametrize("name", VARIANTS)
def test_steps_by_products_are_those_of_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option, with the threshold out of the way."""
    monkeypatch.setattr(onednn, "BEATS_MKL", True)
    eager = dataclasses.replace(
        sdpa.KERNEL, declines=lambda request: "one query" if request.mask.queries == 1 else None
    )
    monkeypatch.setattr(table, "KERNELS", tuple(eager if k is sdpa.KERNEL else k for k in table.KERNELS))
    model = stack(name)
    x, extra = inputs(model)
    with torch.no_grad():
        whole = model(x, **extra)
        cache = model.new_cache(x.shape[0], x.shape[1])
        parts = [model(x[:, :2], cache=cache, **extra)]
        parts += [model(x[:, i : i + 1], cache=cache) for i in range(2, x.shape[1])]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)
