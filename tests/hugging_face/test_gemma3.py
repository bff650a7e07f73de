"""Gemma 3: norms of queries and keys, two bases of rotary positions, one of them scaled, windows."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

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
    "windows": {
        "num_key_value_heads": 2,
        "head_dim": 6,
        "sliding_window": 4,
        "query_pre_attn_scalar": 9,
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    },
    "scaled positions": {
        "num_key_value_heads": 1,
        "head_dim": 8,
        "sliding_window": 7,
        "num_hidden_layers": 7,
        "rms_norm_eps": 1e-3,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 20000.0},
        },
    },
    "biases, own logits": {
        "num_key_value_heads": 4,
        "head_dim": 4,
        "attention_bias": True,
        "final_logit_softcapping": 2.0,
        "tie_word_embeddings": False,
        "hidden_activation": "silu",
        "layer_types": ["full_attention", "full_attention"],
    },
}


def peer(case: str) -> Gemma3ForCausalLM:
    return Gemma3ForCausalLM(Gemma3TextConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
