"""DINOv2: mask token and none, a gated feedforward, classes, float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import Dinov2Config, Dinov2ForImageClassification, Dinov2Model

from .agreement import agreement, check

SMALL = {
    "hidden_size": 24,
    "mlp_ratio": 3,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 12,
    "patch_size": 4,
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "classes": {"num_labels": 5, "num_channels": 1, "layerscale_value": 0.5, "num_hidden_layers": 3},
    "gated": {"use_swiglu_ffn": True, "qkv_bias": False, "use_mask_token": False},
    "activation": {"hidden_act": "relu", "layer_norm_eps": 1e-3, "image_size": 14, "num_attention_heads": 4},
}


def peer(case: str) -> Any:
    config = Dinov2Config(**SMALL | CASES[case])
    return Dinov2ForImageClassification(config) if case == "classes" else Dinov2Model(config)


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_agrees_in_float64() -> None:
    found = agreement(peer("plain"), dtype=torch.float64)
    assert found.padded < 1e-6  # positions of another size: they interpolate in float32
    check(replace(found, padded=0.0), atol=1e-10)
