"""Granite: factors of embedding, scores, branches and logits."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import GraniteConfig, GraniteForCausalLM

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
    "factors": {
        "num_key_value_heads": 2,
        "embedding_multiplier": 12.0,
        "attention_multiplier": 0.4,
        "residual_multiplier": 0.22,
        "logits_scaling": 8.0,
    },
    "none": {"num_hidden_layers": 3, "rms_norm_eps": 1e-3, "attention_bias": True, "mlp_bias": True},
    "tied": {"tie_word_embeddings": True, "residual_multiplier": 0.5, "logits_scaling": 3.0, "hidden_act": "gelu"},
}


def peer(case: str) -> GraniteForCausalLM:
    return GraniteForCausalLM(GraniteConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
