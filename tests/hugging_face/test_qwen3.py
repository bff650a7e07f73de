"""Qwen 3: norms of queries and keys, heads that are wider than the model, windows, biases."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Qwen3Config, Qwen3ForCausalLM

from .agreement import agreement, check

SMALL: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 27,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 40,
}
CASES: dict[str, dict[str, Any]] = {
    "grouped": {"rms_norm_eps": 1e-5},
    "biases, tied": {"attention_bias": True, "tie_word_embeddings": True, "head_dim": 4, "num_attention_heads": 3}
    | {"num_key_value_heads": 3},
    "windows": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "num_hidden_layers": 3},
    "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "num_key_value_heads": 1},
}


def peer(case: str) -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM(Qwen3Config(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
