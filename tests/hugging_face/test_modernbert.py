"""ModernBERT: windows, bases of rotation by layer, biases, masked tokens and the model alone."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import ModernBertConfig, ModernBertForMaskedLM, ModernBertModel

import blockdsl

from .agreement import agreement, check

SMALL = {
    "vocab_size": 19,
    "hidden_size": 24,
    "intermediate_size": 27,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "max_position_embeddings": 40,
    "local_attention": 6,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
CASES: dict[str, tuple[type, dict[str, Any]]] = {
    "masked tokens": (ModernBertForMaskedLM, {}),
    "biases": (
        ModernBertForMaskedLM,
        {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True, "decoder_bias": False},
    ),
    "other windows and bases, SiLU": (
        ModernBertForMaskedLM,
        {
            "global_attn_every_n_layers": 2,
            "local_attention": 4,
            "hidden_activation": "silu",
            "classifier_activation": "relu",
            "global_rope_theta": 5e4,
            "local_rope_theta": 100.0,
            "norm_eps": 1e-3,
        },
    ),
    "model": (ModernBertModel, {"num_hidden_layers": 3, "layer_types": ["sliding_attention", *["full_attention"] * 2]}),
}


def peer(case: str) -> Any:
    make, options = CASES[case]
    return make(ModernBertConfig(**SMALL | options))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_the_published_layers_are_written_once() -> None:
    config = {**SMALL, "num_hidden_layers": 22, "local_attention": 128, "model_type": "modernbert"}
    (text,) = blockdsl.hugging_face.read(config).texts.values()
    pattern = text.partition("; ")[2]
    assert pattern == (
        "a(norm=false, rotary_theta=160000.0) f "
        "((a(max_attend_past=64, max_attend_future=64) f)*2 a(rotary_theta=160000.0) f)*7"
    )
