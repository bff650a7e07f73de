"""Granite 4: factors, with rotary positions and without, with experts and without."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import GraniteMoeHybridConfig, GraniteMoeHybridForCausalLM

from .agreement import agreement, check

M, A = "linear_attention", "full_attention"
SMALL = {
    "vocab_size": 19,
    "hidden_size": 16,
    "shared_intermediate_size": 27,
    "num_hidden_layers": 3,
    "layer_types": [M, A, M],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 0,
    "mamba_n_heads": 4,
    "mamba_d_state": 5,
    "mamba_chunk_size": 4,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
CASES: dict[str, dict[str, Any]] = {
    "factors": {
        "embedding_multiplier": 12.0,
        "attention_multiplier": 0.4,
        "residual_multiplier": 0.22,
        "logits_scaling": 8.0,
        "tie_word_embeddings": True,
    },
    "rotary": {"position_embedding_type": "rope", "attention_bias": True, "mamba_n_groups": 2},
    "experts": {
        "num_local_experts": 5,
        "intermediate_size": 12,  # their products of groups take multiples of 4
        "shared_intermediate_size": 9,
        "residual_multiplier": 0.22,
    },
}


def peer(case: str) -> GraniteMoeHybridForCausalLM:
    return GraniteMoeHybridForCausalLM(GraniteMoeHybridConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
