"""gpt-oss (arXiv:2508.10925)."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import GptOssConfig, GptOssForCausalLM

from .agreement import agreement, check
from .small_experts import SMALL

CASES: dict[str, dict[str, Any]] = {
    "windows in every other layer": {"sliding_window": 4, "num_hidden_layers": 3},
    "scaled": {"rope_parameters": None, "max_position_embeddings": 131072, "head_dim": 32},
    "bounds reached": {"swiglu_limit": 0.01, "layer_types": ["full_attention", "full_attention"]},
}


def peer(case: str) -> GptOssForCausalLM:
    plain = {"rope_type": "default", "rope_theta": 150000.0}
    own = {"head_dim": 6, "num_local_experts": 4, "rope_parameters": plain}
    return GptOssForCausalLM(GptOssConfig(**SMALL | own | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
