"""SigLIP's image encoder: with the query that pools and without, sizes that no patches tile, float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import SiglipVisionConfig, SiglipVisionModel

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
    "pixels left out": {"image_size": 14, "num_channels": 1, "num_attention_heads": 2, "num_hidden_layers": 3},
    "activation": {"hidden_act": "relu", "layer_norm_eps": 1e-3},
    "without a query": {"vision_use_head": False},
}


def peer(case: str) -> SiglipVisionModel:
    return SiglipVisionModel(SiglipVisionConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_agrees_in_float64() -> None:
    check(agreement(peer("plain"), dtype=torch.float64, attention="sdpa"), atol=1e-10)
