"""DeepSeek-V3 (arXiv:2412.19437)."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from .agreement import agreement, check
from .small_deepseek import SMALL, YARN

CASES: dict[str, dict[str, Any]] = {
    "groups, scaled": {"n_group": 3, "topk_group": 2, "rope_parameters": YARN},
    "biases, halves, dense": {
        "attention_bias": True,
        "rope_interleave": False,
        "first_k_dense_replace": 3,
        "num_hidden_layers": 2,
    },
    "weights as they are": {"n_group": 1, "topk_group": 1, "norm_topk_prob": False, "num_experts_per_tok": 3},
}


def peer(case: str) -> DeepseekV3ForCausalLM:
    return DeepseekV3ForCausalLM(DeepseekV3Config(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
