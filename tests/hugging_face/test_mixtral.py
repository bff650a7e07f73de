"""Mixtral (arXiv:2401.04088)."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import MixtralConfig, MixtralForCausalLM

from blockdsl import UserError
from blockdsl.hugging_face import read

from .agreement import agreement, check
from .small_experts import SMALL

CASES: dict[str, dict[str, Any]] = {
    "experts": {"num_local_experts": 5},
    "windows, tied": {"num_local_experts": 3, "sliding_window": 4, "head_dim": 6, "tie_word_embeddings": True},
    "one each, of all tokens": {"num_local_experts": 4, "num_experts_per_tok": 1, "num_key_value_heads": 4},
}


def peer(case: str) -> MixtralForCausalLM:
    return MixtralForCausalLM(MixtralConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_what_is_refused_is_refused_by_name() -> None:
    said = {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], **SMALL, "num_local_experts": 4}
    assert (
        "moe_balance_loss=0.04" in read(said | {"router_aux_loss_coef": 0.02, "output_router_logits": True}).texts[""]
    )
    assert "moe_balance_loss=0" in read(said).texts[""]
    with pytest.raises(UserError, match="router_jitter_noise"):
        read(said | {"router_jitter_noise": 0.1})
