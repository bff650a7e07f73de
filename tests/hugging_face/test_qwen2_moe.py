"""Qwen2 with experts (arXiv:2407.10671)."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

from .agreement import agreement, check
from .small_experts import SMALL

CASES: dict[str, dict[str, Any]] = {
    "a shared expert": {"shared_expert_intermediate_size": 9},
    "among feedforwards": {"decoder_sparse_step": 2, "qkv_bias": False, "norm_topk_prob": True},
    "one shared, tied": {"num_experts_per_tok": 3, "num_key_value_heads": 4, "tie_word_embeddings": True},
}


def peer(case: str) -> Qwen2MoeForCausalLM:
    return Qwen2MoeForCausalLM(Qwen2MoeConfig(**SMALL | {"moe_intermediate_size": 8, "num_experts": 6} | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
