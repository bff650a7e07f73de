"""Zamba2: shared blocks in turn, one alone, with adapters of attention, rotary positions and biases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from transformers import Zamba2Config, Zamba2ForCausalLM

from .agreement import agreement, check

M, H = "linear_attention", "hybrid"
SMALL: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 12,
    "num_hidden_layers": 5,
    "layers_block_type": [M, H, M, H, H],
    "num_attention_heads": 4,
    "n_mamba_heads": 4,
    "mamba_d_state": 5,
    "adapter_rank": 3,
    "chunk_size": 4,
    "rms_norm_eps": 0.1,  # a norm of what attention alone gives magnifies rounding where that is small
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
CASES: dict[str, dict[str, Any]] = {
    "two in turn": {"num_mem_blocks": 2, "mamba_ngroups": 2},
    "adapters of attention, rotary positions": {"use_shared_attention_adapter": True, "use_mem_rope": True},
    "fewer keys": {
        "num_key_value_heads": 2,
        "use_mem_rope": True,
        "use_long_context": True,
        "num_hidden_layers": 4,
        "layers_block_type": [H, M, M, H],
        "mamba_d_conv": 3,
    },
    "as many blocks as uses": {"num_mem_blocks": 4, "hidden_act": "silu", "rms_norm_eps": 1e-3},
}


def peer(case: str) -> Zamba2ForCausalLM:
    return model(CASES[case])


def model(config: dict[str, Any]) -> Zamba2ForCausalLM:
    return Zamba2ForCausalLM(Zamba2Config(**SMALL | config))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_biases_agree_but_for_padding() -> None:
    """Theirs is zero before a linear layer, whose bias their convolution then reads at padding; ours sees nothing."""
    check(replace(agreement(model({"add_bias_linear": True})), padded=0.0, tokens=None))
