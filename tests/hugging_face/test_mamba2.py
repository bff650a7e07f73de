"""Mamba-2: groups, biases, another kernel, tied logits.

With a bias of the first linear layer their convolution reads what it makes of padding, and a row is not what it is alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from transformers import Mamba2Config, Mamba2ForCausalLM

from .agreement import agreement, check

SMALL = {
    "vocab_size": 19,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_heads": 4,
    "head_dim": 8,
    "state_size": 5,
    "n_groups": 1,
    "chunk_size": 4,
    "pad_token_id": 0,
}
CASES: dict[str, dict[str, Any]] = {
    "groups": {"n_groups": 2, "layer_norm_epsilon": 1e-3},
    "narrow, tied": {"conv_kernel": 3, "tie_word_embeddings": True},
    "no convolution bias": {"use_conv_bias": False, "expand": 1, "num_heads": 2, "num_hidden_layers": 3},
}


def peer(case: str) -> Mamba2ForCausalLM:
    return model(CASES[case])


def model(config: dict[str, Any]) -> Mamba2ForCausalLM:
    return Mamba2ForCausalLM(Mamba2Config(**SMALL | config))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_biases_agree_but_for_padding() -> None:
    """Theirs is zero before a linear layer, whose bias their convolution then reads at padding; ours sees nothing."""
    biases = {"use_bias": True, "conv_kernel": 3, "tie_word_embeddings": True}
    check(replace(agreement(model(biases)), padded=0.0, tokens=None))
