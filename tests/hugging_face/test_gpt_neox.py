"""GPT-NeoX and Pythia: side by side or not, biases, features rotated, scaled rotary positions."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from .agreement import agreement, check

SMALL = {
    "vocab_size": 19,
    "hidden_size": 24,
    "intermediate_size": 31,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "rotary_pct": 0.5,
    "max_position_embeddings": 40,
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one after another": {"use_parallel_residual": False, "rotary_pct": 1.0, "num_hidden_layers": 3},
    "no biases": {"attention_bias": False, "layer_norm_eps": 1e-3, "hidden_act": "gelu_new", "rotary_pct": 0.5},
    "theta": {"rotary_emb_base": 500.0, "rotary_pct": 0.5, "num_attention_heads": 2, "tie_word_embeddings": True},
    "scaled": {
        "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
    },
}


def peer(case: str) -> GPTNeoXForCausalLM:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
