"""Whisper: frames through convolutions, biases but of keys, suppressed tokens."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import WhisperConfig, WhisperForConditionalGeneration

from .agreement import agreement, check

SMALL = {
    "vocab_size": 37,
    "num_mel_bins": 5,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 20,
    "max_source_positions": 11,
    "max_target_positions": 40,
    "pad_token_id": 1,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "decoder_start_token_id": 2,
    "begin_suppress_tokens": [1, 5],
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "suppressed": {"suppress_tokens": [3, 7, 8, 20], "encoder_layers": 3},
    "relu": {"scale_embedding": True, "activation_function": "relu", "begin_suppress_tokens": None},
    "odd": {"d_model": 18, "encoder_attention_heads": 3, "decoder_attention_heads": 9, "num_mel_bins": 3},
}


def peer(case: str) -> WhisperForConditionalGeneration:
    return WhisperForConditionalGeneration(WhisperConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
