"""CLIP's text encoder: with its projection and without, an end token and the highest one, float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from .agreement import agreement, check

SMALL = {
    "vocab_size": 19,
    "hidden_size": 24,
    "intermediate_size": 29,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 11,
    "projection_dim": 7,
    "bos_token_id": 0,
    "eos_token_id": 17,
}
CASES: dict[str, dict[str, Any]] = {
    "projection": {},
    "highest token": {"eos_token_id": 2, "hidden_act": "gelu", "num_hidden_layers": 3},
    "wide": {"projection_dim": 24, "layer_norm_eps": 1e-3, "num_attention_heads": 2},
    "without a projection": {},
}


def peer(case: str) -> Any:
    config = CLIPTextConfig(**SMALL | CASES[case])
    return CLIPTextModel(config) if case == "without a projection" else CLIPTextModelWithProjection(config)


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_agrees_in_float64() -> None:
    check(agreement(peer("wide"), dtype=torch.float64, attention="sdpa"), atol=1e-10)
