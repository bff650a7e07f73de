"""CLIP's image encoder: with its projection and without, activations, float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

from .agreement import agreement, check

SMALL = {
    "hidden_size": 24,
    "intermediate_size": 29,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 12,
    "patch_size": 4,
    "projection_dim": 7,
}
CASES: dict[str, dict[str, Any]] = {
    "projection": {},
    "gelu": {"hidden_act": "gelu", "layer_norm_eps": 1e-3, "num_channels": 1, "num_attention_heads": 2},
    "pixels left out": {"image_size": 14, "num_hidden_layers": 3, "projection_dim": 30},
    "without a projection": {},
}


def peer(case: str) -> Any:
    config = CLIPVisionConfig(**SMALL | CASES[case])
    return CLIPVisionModel(config) if case == "without a projection" else CLIPVisionModelWithProjection(config)


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_agrees_in_float64() -> None:
    check(agreement(peer("projection"), dtype=torch.float64, attention="sdpa"), atol=1e-10)
