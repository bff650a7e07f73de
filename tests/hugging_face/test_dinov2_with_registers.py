"""DINOv2 with registers: how many, a gated feedforward, classes, float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import (
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    Dinov2WithRegistersModel,
)

from .agreement import agreement, check
from .test_dinov2 import SMALL

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "classes": {"num_labels": 5, "num_channels": 1, "num_register_tokens": 1, "num_hidden_layers": 3},
    "gated": {"use_swiglu_ffn": True, "qkv_bias": False, "num_register_tokens": 3, "layerscale_value": 0.1},
}


def peer(case: str) -> Any:
    config = Dinov2WithRegistersConfig(**SMALL | CASES[case])
    return Dinov2WithRegistersForImageClassification(config) if case == "classes" else Dinov2WithRegistersModel(config)


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_agrees_in_float64() -> None:
    found = agreement(peer("plain"), dtype=torch.float64)
    assert found.padded < 1e-6  # positions of another size: they interpolate in float32
    check(replace(found, padded=0.0), atol=1e-10)
