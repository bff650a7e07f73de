"""Falcon: each form of heads and norms, biases, activations, logits of their own."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import FalconConfig, FalconForCausalLM

from .agreement import agreement, check

SMALL = {
    "vocab_size": 19,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "max_position_embeddings": 40,
}
CASES: dict[str, dict[str, Any]] = {
    "7B": {},
    "40B": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "11B": {"new_decoder_architecture": True, "num_kv_heads": 3, "num_ln_in_parallel_attn": 1, "ffn_hidden_size": 29},
    "every head its keys": {"multi_query": False, "bias": True, "num_attention_heads": 3, "activation": "relu"},
    "RW": {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True, "num_attention_heads": 4},
    "one after another": {"parallel_attn": False, "tie_word_embeddings": False, "layer_norm_epsilon": 1e-3},
    "40B, biases": {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True, "num_hidden_layers": 3},
}


def peer(case: str) -> FalconForCausalLM:
    return FalconForCausalLM(FalconConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
