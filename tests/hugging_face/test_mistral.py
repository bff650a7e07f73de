"""Mistral: windows of several lengths and none, groups, head sizes of their own."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import MistralConfig, MistralForCausalLM, MistralModel

from blockdsl.hugging_face import read

from .agreement import agreement, check

SMALL: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 27,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 40,
}
CASES: dict[str, dict[str, Any]] = {
    "window": {"sliding_window": 4},
    "no window": {"sliding_window": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    "two tokens, head_dim": {"sliding_window": 2, "head_dim": 6, "num_key_value_heads": 1, "num_hidden_layers": 3},
    "longer than the text, tied": {"sliding_window": 64, "tie_word_embeddings": True, "rms_norm_eps": 1e-5},
}


def peer(case: str) -> MistralForCausalLM:
    return MistralForCausalLM(MistralConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_agrees_without_a_head() -> None:
    check(agreement(MistralModel(MistralConfig(**SMALL, sliding_window=5))))


def test_a_window_that_is_left_out_is_that_of_the_first_release() -> None:
    plain = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], **SMALL}
    assert "attn_max_attend_past=4095" in read(plain).texts[""]
    assert "attn_max_attend_past" not in read(plain | {"sliding_window": None}).texts[""]
