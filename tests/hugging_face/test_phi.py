"""Phi: groups of heads, a norm of queries and keys, features rotated, tied logits."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PhiConfig, PhiForCausalLM

from .agreement import agreement, check

SMALL = {
    "vocab_size": 19,
    "hidden_size": 24,
    "intermediate_size": 31,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
    "partial_rotary_factor": 0.7,
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"num_key_value_heads": 2, "num_hidden_layers": 3, "partial_rotary_factor": 1.0},
    "normed": {"qk_layernorm": True, "layer_norm_eps": 1e-3, "num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True, "hidden_act": "relu", "num_attention_heads": 3, "partial_rotary_factor": 0.5},
    "yarn": {
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 10,
            "rope_theta": 500.0,
            "partial_rotary_factor": 0.7,
        }
    },
}


def peer(case: str) -> PhiForCausalLM:
    return PhiForCausalLM(PhiConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
