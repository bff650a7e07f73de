"""Falcon-H1: factors everywhere, the gated norm before the gate, after it and none."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import FalconH1Config, FalconH1ForCausalLM

from .agreement import agreement, check

SMALL = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 27,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "mamba_d_ssm": 24,
    "mamba_n_heads": 4,
    "mamba_d_state": 5,
    "mamba_chunk_size": 4,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
CASES: dict[str, dict[str, Any]] = {
    "factors": {
        "embedding_multiplier": 3.0,
        "lm_head_multiplier": 0.5,
        "key_multiplier": 0.4,
        "attention_in_multiplier": 0.8,
        "attention_out_multiplier": 0.9,
        "ssm_in_multiplier": 1.25,
        "ssm_out_multiplier": 0.3,
        "ssm_multipliers": [0.35, 0.25, 0.18, 0.5, 0.31],
        "mlp_multipliers": [0.88, 0.22],
    },
    "norm before the gate": {"mamba_rms_norm": True, "mamba_n_groups": 2, "mlp_bias": True},
    "norm after the gate": {"mamba_rms_norm": True, "mamba_norm_before_gate": False, "attention_bias": True},
}


def peer(case: str) -> FalconH1ForCausalLM:
    return FalconH1ForCausalLM(FalconH1Config(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
