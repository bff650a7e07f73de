"""LLaMA: heads and groups, head sizes of their own, odd sizes."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import LlamaConfig, LlamaModel

from .agreement import agreement, check

SMALL = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
}
CASES: dict[str, dict[str, Any]] = {
    "grouped": {"num_key_value_heads": 2},
    "head_dim": {"head_dim": 6, "num_hidden_layers": 3},
}


def peer(case: str) -> LlamaModel:
    return LlamaModel(LlamaConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
