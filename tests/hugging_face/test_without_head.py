"""Decoders without a head, models at hand beside their files, and files whose names have no prefix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

from xt_blocks import from_hugging_face

from . import test_bloom, test_falcon, test_gpt_neox, test_gptj, test_mpt, test_opt, test_phi
from .agreement import agreement, check, randomised

FAMILIES: dict[str, Any] = {
    "GPTJ": test_gptj,
    "GPTNeoX": test_gpt_neox,
    "Bloom": test_bloom,
    "Mpt": test_mpt,
    "Falcon": test_falcon,
    "OPT": test_opt,
    "Phi": test_phi,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_agrees_without_a_head(name: str) -> None:
    config = getattr(transformers, f"{name}Config")(**FAMILIES[name].SMALL)
    check(agreement(getattr(transformers, f"{name}Model")(config)))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_at_hand_is_its_files_with_a_prefix_and_without(name: str, tmp_path: Path) -> None:
    theirs = randomised(FAMILIES[name].peer(next(iter(FAMILIES[name].CASES)))).eval()
    theirs.save_pretrained(tmp_path)
    tokens = torch.arange(7)[None]
    at_hand, read = from_hugging_face(theirs), from_hugging_face(tmp_path)
    assert torch.equal(at_hand(tokens), read(tokens))
    if theirs.config.tie_word_embeddings:  # as published files of GPT-2 and BLOOM are
        save_file(theirs.base_model.state_dict(), tmp_path / "model.safetensors")
        assert torch.equal(from_hugging_face(tmp_path)(tokens), read(tokens))
