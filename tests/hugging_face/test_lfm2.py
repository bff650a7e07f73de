"""LFM2: short convolutions and attention, in the releases' two ways to say which, with and without biases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from transformers import Lfm2Config, Lfm2ForCausalLM

from .agreement import agreement, check

SMALL: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 30,
    "block_multiple_of": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 40,
    "layer_types": ["conv", "full_attention", "conv"],
}
CASES: dict[str, dict[str, Any]] = {
    "convolutions among attention": {},
    "a head of its own": {"tie_word_embeddings": False, "layer_types": None, "full_attn_idxs": [1]},
    "features as they are said": {"block_auto_adjust_ff_dim": False, "norm_eps": 1e-3, "conv_L_cache": 4},
}


def peer(case: str) -> Lfm2ForCausalLM:
    return model(CASES[case])


def model(config: dict[str, Any]) -> Lfm2ForCausalLM:
    return Lfm2ForCausalLM(Lfm2Config(**SMALL | config))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_biases_agree_but_for_padding() -> None:
    """Theirs is zero before a linear layer, whose bias their convolution then reads at padding; ours sees nothing."""
    check(
        replace(
            agreement(model({"conv_bias": True, "num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]})),
            padded=0.0,
        )
    )
