"""ViT: heads, images that are not square, a pooler and none, classes, float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTModel

from .agreement import agreement, check

SMALL = {
    "hidden_size": 24,
    "intermediate_size": 29,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 12,
    "patch_size": 4,
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "classes": {"num_labels": 5, "num_channels": 1, "num_hidden_layers": 3},
    "no biases": {"qkv_bias": False, "hidden_act": "gelu_new", "layer_norm_eps": 1e-3, "num_attention_heads": 2},
    "pixels left out": {"image_size": 14, "num_channels": 2, "hidden_act": "relu"},
}


def peer(case: str) -> Any:
    config = ViTConfig(**SMALL | CASES[case])
    return ViTForImageClassification(config) if case == "classes" else ViTModel(config)


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_agrees_in_float64() -> None:
    check(agreement(peer("plain"), dtype=torch.float64, attention="sdpa"), atol=1e-10)


def test_agrees_without_a_pooler() -> None:
    check(agreement(ViTModel(ViTConfig(**SMALL), add_pooling_layer=False)))
