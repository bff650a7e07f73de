"""MPT: heads that are no power of two, eps, the factor of scores, logits of their own."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import MptConfig, MptForCausalLM

from .agreement import agreement, check

SMALL = {"vocab_size": 19, "d_model": 24, "n_layers": 2, "n_heads": 4, "max_seq_len": 40}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "six heads": {"n_heads": 6, "n_layers": 3},
    "scale": {"attn_config": {"softmax_scale": 0.3}, "layer_norm_epsilon": 1e-3, "n_heads": 1},
    "untied": {"tie_word_embeddings": False, "n_heads": 3},
}


def peer(case: str) -> MptForCausalLM:
    return MptForCausalLM(MptConfig(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
