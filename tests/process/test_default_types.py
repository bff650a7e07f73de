"""A process's default dtype and default device change neither a model that was built before, nor what it gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from .models import CASES, built


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


def same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert one.dtype == other.dtype, f"result {i}"
        assert one.device == other.device, f"result {i}"
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, msg=lambda text, i=i: f"result {i}: {text}")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_a_model_gives_the_same_whatever_the_default_dtype(name: str, dtype: torch.dtype) -> None:
    want = CASES[name][1](built(name))
    model = built(name)
    with default_dtype(dtype):
        same(CASES[name][1](model), want)


@pytest.mark.parametrize("name", CASES)
def test_a_model_on_the_cpu_gives_the_same_whatever_the_default_device(name: str) -> None:
    want = CASES[name][1](built(name))
    model = built(name)
    with default_device("meta"):
        same(CASES[name][1](model), want)


@pytest.mark.parametrize("name", CASES)
def test_a_model_built_under_a_default_dtype_is_of_that_dtype(name: str) -> None:
    with default_dtype(torch.float64):
        model = built(name)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    for result in CASES[name][1](model):
        assert result.dtype in (torch.float64, torch.int64)
