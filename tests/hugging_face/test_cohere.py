"""Command R: parallel blocks that share a norm, neighbouring features rotated, tied and scaled logits."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import CohereConfig, CohereForCausalLM

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
    "grouped": {"num_key_value_heads": 2, "layer_norm_eps": 1e-3},
    "norms of queries and keys": {"use_qk_norm": True, "num_key_value_heads": 2, "num_hidden_layers": 3},
    "biases, own logits": {
        "attention_bias": True,
        "tie_word_embeddings": False,
        "logit_scale": 0.7,
        "hidden_act": "gelu",
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
    },
}


def peer(case: str) -> CohereForCausalLM:
    return CohereForCausalLM(CohereConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
