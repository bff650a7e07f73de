"""OLMo 2: norms of branches' outputs, and of all queries and keys."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Olmo2Config, Olmo2ForCausalLM

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
    "grouped": {"num_key_value_heads": 2, "rms_norm_eps": 1e-3},
    "biases, tied": {"attention_bias": True, "tie_word_embeddings": True, "num_hidden_layers": 3, "hidden_act": "relu"},
    "theta": {"num_attention_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
}


def peer(case: str) -> Olmo2ForCausalLM:
    return Olmo2ForCausalLM(Olmo2Config(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
