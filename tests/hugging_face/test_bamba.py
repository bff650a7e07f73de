"""Bamba: attention in some layers.

With a bias of the first linear layer their convolution reads what it makes of padding, and a row is not what it is alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from transformers import BambaConfig, BambaForCausalLM

from .agreement import agreement, check

SMALL = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 27,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "mamba_n_heads": 4,
    "mamba_d_state": 5,
    "mamba_chunk_size": 4,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
CASES: dict[str, dict[str, Any]] = {
    "hybrid": {"attn_layer_indices": [1], "mamba_n_groups": 2},
    "biases": {"attn_layer_indices": [0, 2], "attention_bias": True, "mlp_bias": True},
    "no convolution bias": {
        "attn_layer_indices": [2],
        "mamba_conv_bias": False,
        "mamba_d_conv": 3,
        "tie_word_embeddings": True,
    },
}


def peer(case: str) -> BambaForCausalLM:
    return model(CASES[case])


def model(config: dict[str, Any]) -> BambaForCausalLM:
    return BambaForCausalLM(BambaConfig(**SMALL | config))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_biases_agree_but_for_padding() -> None:
    """Theirs is zero before a linear layer, whose bias their convolution then reads at padding; ours sees nothing."""
    biases = {"attn_layer_indices": [0, 2], "attention_bias": True, "mlp_bias": True, "mamba_proj_bias": True}
    check(replace(agreement(model(biases)), padded=0.0, tokens=None))
