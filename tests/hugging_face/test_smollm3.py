"""SmolLM3: layers without rotary positions, with windows there or none, biases."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import SmolLM3Config, SmolLM3ForCausalLM

from blockdsl.hugging_face import read

from .agreement import agreement, check

SMALL: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 27,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
CASES: dict[str, dict[str, Any]] = {
    "each fourth": {},
    "each second, biases": {"no_rope_layer_interval": 2, "attention_bias": True, "mlp_bias": True},
    "by layer, untied": {"no_rope_layers": [0, 1, 1, 0], "tie_word_embeddings": False, "num_key_value_heads": 1},
    "windows": {"use_sliding_window": True, "sliding_window": 4, "no_rope_layers": [1, 0, 1, 0]},
    "none": {"no_rope_layers": [0, 0, 0, 0]},
}


def peer(case: str) -> SmolLM3ForCausalLM:
    return SmolLM3ForCausalLM(SmolLM3Config(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_its_text_says_which_layers_have_none() -> None:
    plain = {"model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"], **SMALL, "num_hidden_layers": 8}
    assert read(plain).texts[""].endswith("; ((a f)*3 a(rotary=false) f)*2")
