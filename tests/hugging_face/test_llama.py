"""LLaMA: heads and groups, head sizes of their own, odd sizes, biases, tied logits."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from .agreement import agreement, check

SMALL = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 27,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
}
CASES: dict[str, dict[str, Any]] = {
    "grouped": {"num_key_value_heads": 2, "rms_norm_eps": 1e-5},
    "head_dim": {"head_dim": 6, "num_hidden_layers": 3, "hidden_act": "gelu"},
    "biases, tied": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
}


def peer(case: str) -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
