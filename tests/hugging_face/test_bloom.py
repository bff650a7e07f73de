"""BLOOM: heads that are no power of two, eps, logits of their own."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import BloomConfig, BloomForCausalLM

from .agreement import agreement, check

SMALL = {"vocab_size": 19, "hidden_size": 24, "n_layer": 2, "n_head": 4, "seq_length": 40}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "six heads": {"n_head": 6, "n_layer": 3},
    "eps": {"layer_norm_epsilon": 1e-3, "n_head": 1},
    "untied": {"tie_word_embeddings": False, "n_head": 3},
}


def peer(case: str) -> BloomForCausalLM:
    return BloomForCausalLM(BloomConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
