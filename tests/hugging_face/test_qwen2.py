"""Qwen 2: biases of queries, keys and values, windows in some layers, scaled rotary positions."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Qwen2Config, Qwen2ForCausalLM

from blockdsl import UserError
from blockdsl.hugging_face import read

from .agreement import agreement, check

SMALL: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 27,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 40,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 10, "rope_theta": 1e6}
CASES: dict[str, dict[str, Any]] = {
    "grouped": {},
    "upper windows": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "layer types, tied": {
        "use_sliding_window": True,
        "sliding_window": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "tie_word_embeddings": True,
    },
    "windows everywhere": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0},
    "yarn": {"rope_parameters": YARN, "num_key_value_heads": 1, "hidden_size": 32},
}


def peer(case: str) -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM(Qwen2Config(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


PLAIN = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], **SMALL}


def test_windows_by_layer_are_in_the_text() -> None:
    windows = {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2}
    assert read(PLAIN | windows).texts[""].endswith("; (a f)*2 a(max_attend_past=8) f")
    assert read(PLAIN | windows | {"use_sliding_window": False}).texts[""].endswith("; (a f)*3")


def test_unknown_types_of_layers_are_refused() -> None:
    with pytest.raises(UserError, match=r"layer_types=\['full_attention'\]: it is not one of"):
        read(PLAIN | {"layer_types": ["full_attention"]})
    with pytest.raises(UserError, match="it is not one of full_attention and sliding_attention for each layer"):
        read(PLAIN | {"layer_types": ["full_attention"] * 2 + ["chunked_attention"]})
