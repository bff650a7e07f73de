"""RecurrentGemma: recurrent blocks and windows of attention in several orders, and a factor that bfloat16 rounds."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

from .agreement import agreement, check

SMALL: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "attention_window_size": 5,
    "pad_token_id": 0,
}
CASES: dict[str, dict[str, Any]] = {
    "a window in each third layer": {},
    "biases, other layers": {"attention_bias": True, "block_types": ["attention", "recurrent"], "num_hidden_layers": 4},
    "a factor that is rounded": {"hidden_size": 24, "num_attention_heads": 3, "logits_soft_cap": 5.0}
    | {"conv1d_width": 3, "rms_norm_eps": 1e-3},
}


def peer(case: str) -> RecurrentGemmaForCausalLM:
    return RecurrentGemmaForCausalLM(RecurrentGemmaConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
