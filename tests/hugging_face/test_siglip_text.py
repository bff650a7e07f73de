"""SigLIP's text encoder: features of the shared space, activations, float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import SiglipTextConfig, SiglipTextModel

from .agreement import agreement, check

SMALL = {
    "vocab_size": 19,
    "hidden_size": 24,
    "intermediate_size": 29,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 11,
    "bos_token_id": 0,
    "eos_token_id": 17,
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "narrow": {"projection_size": 7, "num_hidden_layers": 3},
    "activation": {"hidden_act": "relu", "layer_norm_eps": 1e-3, "num_attention_heads": 2},
}


def peer(case: str) -> SiglipTextModel:
    return SiglipTextModel(SiglipTextConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_agrees_in_float64() -> None:
    check(agreement(peer("plain"), dtype=torch.float64, attention="sdpa"), atol=1e-10)
