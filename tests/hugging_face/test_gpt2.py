"""GPT-2: activations, hidden features of their own, a class without a head, float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from .agreement import agreement, check

SMALL = {
    "vocab_size": 19,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 40,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "inner": {"n_inner": 27, "activation_function": "relu", "n_layer": 3},
    "eps": {"layer_norm_epsilon": 1e-3, "n_head": 2, "activation_function": "gelu"},
}


def peer(case: str) -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_agrees_in_float64() -> None:
    check(agreement(peer("plain"), dtype=torch.float64), atol=1e-10)


def test_agrees_without_a_head() -> None:
    check(agreement(GPT2Model(GPT2Config(**SMALL))))
