"""OLMo Hybrid: gated delta nets beside attention with norms after the branch, with rotary positions and without."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import OlmoHybridConfig, OlmoHybridForCausalLM

from .agreement import agreement, check

SMALL: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 27,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 6,
    "linear_value_head_dim": 6,  # files that transformers writes are wrong where keys and values differ in size
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id")),
}
CASES: dict[str, dict[str, Any]] = {
    "rotary": {},
    "no positions, grouped": {"rope_parameters": {"rope_type": "default", "rope_theta": None}, "num_key_value_heads": 2}
    | {"linear_allow_neg_eigval": False, "linear_conv_kernel_dim": 3},
    "value heads": {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_value_head_dim": 3}
    | {"attention_bias": True, "tie_word_embeddings": True},
}


def peer(case: str) -> OlmoHybridForCausalLM:
    return OlmoHybridForCausalLM(OlmoHybridConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
