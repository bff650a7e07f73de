"""Families all of whose arithmetic in `transformers` is of the model's type agree in float64 to 1e-10.

Others compute norms, rotary positions or softmaxes in float32 whatever the type; images are in tests of their own.
"""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from .agreement import agreement, check


@pytest.mark.parametrize("family", ["albert", "bart", "bert", "distilbert", "electra", "opt", "roberta"])
def test_agrees_in_float64(family: str) -> None:
    test = import_module(f".test_{family}", __package__)
    check(agreement(test.peer(next(iter(test.CASES))), dtype=torch.float64, attention="sdpa"), atol=1e-10)
