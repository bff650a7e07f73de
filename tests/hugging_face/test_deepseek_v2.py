"""DeepSeek-V2 (arXiv:2405.04434)."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM

from .agreement import agreement, check
from .small_deepseek import SMALL, YARN

CASES: dict[str, dict[str, Any]] = {
    "groups": {"topk_method": "group_limited_greedy", "n_group": 3, "topk_group": 2, "routed_scaling_factor": 16.0},
    "Lite, scaled": {"q_lora_rank": None, "rope_parameters": YARN},
    "biases": {"attention_bias": True, "n_shared_experts": 1, "first_k_dense_replace": 0},
}


def peer(case: str) -> DeepseekV2ForCausalLM:
    return DeepseekV2ForCausalLM(DeepseekV2Config(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
