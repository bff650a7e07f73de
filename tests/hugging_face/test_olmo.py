"""OLMo 1: norms without parameters."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import OlmoConfig, OlmoForCausalLM

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
    "grouped": {"num_key_value_heads": 2, "hidden_act": "gelu"},
    "biases, tied": {"attention_bias": True, "tie_word_embeddings": True, "num_hidden_layers": 3},
    "theta": {"num_attention_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
}


def peer(case: str) -> OlmoForCausalLM:
    return OlmoForCausalLM(OlmoConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
