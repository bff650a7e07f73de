"""Falcon-Mamba: Mamba with norms of steps, B and C, which have an epsilon of their own."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import FalconMambaConfig, FalconMambaForCausalLM

from .agreement import agreement, check

SMALL: dict[str, Any] = {"vocab_size": 19, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2}
CASES: dict[str, dict[str, Any]] = {
    "usual": {},
    "a head of its own, epsilons": {"tie_word_embeddings": False, "mixer_rms_eps": 1e-2, "layer_norm_epsilon": 1e-3},
    "another width": {"intermediate_size": 16, "time_step_rank": 3},
}


def peer(case: str) -> FalconMambaForCausalLM:
    return FalconMambaForCausalLM(FalconMambaConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
