"""StableLM: a share of the features rotated, parallel blocks, norms of each head."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import StableLmConfig, StableLmForCausalLM

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
    "grouped": {"hidden_size": 32, "num_key_value_heads": 2, "layer_norm_eps": 1e-3},
    "biases, half rotated": {
        "use_qkv_bias": True,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "hidden_act": "gelu",
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
    },
    "parallel, norms of heads": {
        "hidden_size": 32,
        "use_parallel_residual": True,
        "qk_layernorm": True,
        "num_key_value_heads": 2,
        "num_hidden_layers": 3,
    },
}


def peer(case: str) -> StableLmForCausalLM:
    return StableLmForCausalLM(StableLmConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
