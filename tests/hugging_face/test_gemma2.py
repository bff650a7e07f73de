"""Gemma 2: windows that are shorter than the text, both softcaps, a scale of its own."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Gemma2Config, Gemma2ForCausalLM

from .agreement import agreement, check

SMALL = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 27,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
CASES: dict[str, dict[str, Any]] = {
    "windows": {"num_key_value_heads": 2, "head_dim": 6, "sliding_window": 4, "query_pre_attn_scalar": 9},
    "no caps": {
        "num_key_value_heads": 1,
        "head_dim": 8,
        "sliding_window": 7,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "num_hidden_layers": 3,
        "rms_norm_eps": 1e-3,
    },
    "small caps, own logits": {
        "num_key_value_heads": 4,
        "head_dim": 4,
        "attention_bias": True,
        "attn_logit_softcapping": 1.5,
        "final_logit_softcapping": 2.0,
        "tie_word_embeddings": False,
        "hidden_activation": "silu",
        "layer_types": ["full_attention", "sliding_attention"],
        "sliding_window": 3,
    },
}


def peer(case: str) -> Gemma2ForCausalLM:
    return Gemma2ForCausalLM(Gemma2Config(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
