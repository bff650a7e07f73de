"""GPT-J: features rotated, hidden features of their own, activations, tied logits."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import GPTJConfig, GPTJForCausalLM

from .agreement import agreement, check

SMALL = {"vocab_size": 19, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 40, "rotary_dim": 4}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "inner": {"n_inner": 27, "activation_function": "relu", "n_layer": 3, "rotary_dim": 8},
    "eps": {"layer_norm_epsilon": 1e-3, "rotary_dim": 2, "activation_function": "gelu"},
    "tied": {"tie_word_embeddings": True},
}


def peer(case: str) -> GPTJForCausalLM:
    return GPTJForCausalLM(GPTJConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
