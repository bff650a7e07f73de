"""Qwen3-Next: gated delta nets beside gated attention, with experts in all layers or in some."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

from .agreement import agreement, check

SMALL: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 27,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 40,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 6,
    "linear_value_head_dim": 5,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "shared_expert_intermediate_size": 7,
}
CASES: dict[str, dict[str, Any]] = {
    "experts": {},
    "a dense layer, biases": {"mlp_only_layers": [0], "attention_bias": True, "rms_norm_eps": 1e-3},
    "weights as they are": {"norm_topk_prob": False, "linear_num_value_heads": 2, "linear_conv_kernel_dim": 3}
    | {"tie_word_embeddings": True, "partial_rotary_factor": 0.5},
}


def peer(case: str) -> Qwen3NextForCausalLM:
    return Qwen3NextForCausalLM(Qwen3NextConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
