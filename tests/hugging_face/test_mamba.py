"""Mamba: selective scans alone, of several sizes and ranks, with biases and without."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from transformers import MambaConfig, MambaForCausalLM

from .agreement import agreement, check

SMALL: dict[str, Any] = {"vocab_size": 19, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2}
CASES: dict[str, dict[str, Any]] = {
    "usual": {},
    "a head of its own": {"use_conv_bias": False, "tie_word_embeddings": False},
    "other sizes": {"expand": 3, "time_step_rank": 5, "conv_kernel": 3, "layer_norm_epsilon": 1e-3},
}


def peer(case: str) -> MambaForCausalLM:
    return model(CASES[case])


def model(config: dict[str, Any]) -> MambaForCausalLM:
    return MambaForCausalLM(MambaConfig(**SMALL | config))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_biases_agree_but_for_padding() -> None:
    """Theirs is zero before a linear layer, whose bias their convolution then reads at padding; ours sees nothing."""
    check(replace(agreement(model({"use_bias": True})), padded=0.0, tokens=None))
