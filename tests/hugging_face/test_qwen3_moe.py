"""Qwen3 with experts (arXiv:2505.09388)."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from .agreement import agreement, check
from .small_experts import SMALL

CASES: dict[str, dict[str, Any]] = {
    "weights sum to 1": {"norm_topk_prob": True},
    "among feedforwards": {"decoder_sparse_step": 2, "mlp_only_layers": [3], "num_hidden_layers": 5},
    "windows": {"use_sliding_window": True, "sliding_window": 4, "attention_bias": True},
}


def peer(case: str) -> Qwen3MoeForCausalLM:
    own = {"moe_intermediate_size": 8, "num_experts": 6, "head_dim": 6}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SMALL | own | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
