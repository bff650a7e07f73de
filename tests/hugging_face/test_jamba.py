"""Jamba: scans with norms and attention without positions, with experts in some layers and in none."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import JambaConfig, JambaForCausalLM

from .agreement import agreement, check

SMALL: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 28,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "mamba_d_state": 4,
    "mamba_dt_rank": 3,
    "num_experts": 4,
    "attn_layer_period": 4,
    "attn_layer_offset": 1,
    "max_position_embeddings": 64,
}
CASES: dict[str, dict[str, Any]] = {
    "experts in each second layer": {},
    "no experts, tied": {"num_experts": 1, "tie_word_embeddings": True, "mamba_expand": 3, "mamba_d_conv": 3},
    "experts in each layer": {"expert_layer_period": 1, "expert_layer_offset": 0, "mamba_dt_rank": "auto"}
    | {"num_hidden_layers": 2, "num_experts_per_tok": 1, "rms_norm_eps": 1e-3},
}


def peer(case: str) -> JambaForCausalLM:
    return JambaForCausalLM(JambaConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
