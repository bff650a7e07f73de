"""GPT-2: activations, hidden features of their own, a class without a head, float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from xt_blocks import from_hugging_face

from .agreement import agreement, check

SMALL = {
    "vocab_size": 19,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 40,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "inner": {"n_inner": 27, "activation_function": "relu", "n_layer": 3},
    "unscaled": {"scale_attn_weights": False, "tie_word_embeddings": False},
    "scaled by layer": {"scale_attn_by_inverse_layer_idx": True, "n_layer": 3},
    "eps": {"layer_norm_epsilon": 1e-3, "n_head": 2, "activation_function": "gelu"},
}


def peer(case: str) -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_agrees_in_float64() -> None:
    check(agreement(peer("plain"), dtype=torch.float64), atol=1e-10)


def test_agrees_without_a_head() -> None:
    check(agreement(GPT2Model(GPT2Config(**SMALL))))


def test_files_of_older_releases_have_no_prefix_and_the_causal_mask(tmp_path: Path) -> None:
    """As the published ones have."""
    theirs = peer("plain")
    theirs.save_pretrained(tmp_path)
    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 40, 40).tril() for i in range(2)}
    masks |= {f"h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(2)}
    save_file({**theirs.transformer.state_dict(), **masks}, tmp_path / "model.safetensors")
    tokens = torch.arange(7)[None]
    assert torch.equal(from_hugging_face(tmp_path)(tokens), from_hugging_face(theirs)(tokens))
