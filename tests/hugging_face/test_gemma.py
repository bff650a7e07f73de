"""Gemma 1: gains as offsets, heads of their own size, one key head."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import GemmaConfig, GemmaForCausalLM

from .agreement import agreement, check

SMALL = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 27,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
CASES: dict[str, dict[str, Any]] = {
    "one key head": {"num_key_value_heads": 1, "head_dim": 6},
    "first files": {"hidden_act": "gelu", "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-3},
    "biases, own logits": {
        "num_key_value_heads": 4,
        "head_dim": 4,
        "attention_bias": True,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "num_hidden_layers": 3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    },
}


def peer(case: str) -> GemmaForCausalLM:
    return GemmaForCausalLM(GemmaConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
