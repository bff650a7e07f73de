"""OPT: norms before and after, without gains, no last norm, no biases, activations, logits of their own."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import OPTConfig, OPTForCausalLM

from .agreement import agreement, check

SMALL = {
    "vocab_size": 19,
    "hidden_size": 24,
    "ffn_dim": 31,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 40,
    "word_embed_proj_dim": 24,
    "pad_token_id": 0,  # whose row has no gradient there, and which the tests do not draw
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "post-norm": {"do_layer_norm_before": False, "num_attention_heads": 2, "activation_function": "gelu"},
    "no gains": {"layer_norm_elementwise_affine": False, "num_hidden_layers": 3},
    "no last norm": {"_remove_final_layer_norm": True},
    "no biases": {"enable_bias": False, "tie_word_embeddings": False},
}


def peer(case: str) -> OPTForCausalLM:
    return OPTForCausalLM(OPTConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
