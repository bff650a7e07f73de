"""BART and mBART: post-norm and pre-norm, a shared embedding, positions from row 2, forced first and last tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, BartModel, MBartConfig, MBartForConditionalGeneration

import xt_blocks
from blockdsl import UserError
from blockdsl.hugging_face.config import Config
from blockdsl.hugging_face.encoder_decoder import generation, generation_config

from .agreement import agreement, check, randomised

SMALL = {
    "vocab_size": 37,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 20,
    "max_position_embeddings": 40,
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "mBART": {"mbart": True},
    "mBART, scaled": {"mbart": True, "scale_embedding": True, "activation_function": "relu", "encoder_layers": 3},
    "scaled": {"scale_embedding": True, "activation_function": "relu", "encoder_layers": 3},
    "odd": {
        "d_model": 15,
        "encoder_attention_heads": 3,
        "decoder_attention_heads": 5,
        "activation_function": "gelu_new",
    },
}


def peer(case: str) -> Any:
    options = dict(CASES[case])
    if options.pop("mbart", False):
        return MBartForConditionalGeneration(MBartConfig(**SMALL | options, decoder_start_token_id=4))
    theirs = BartForConditionalGeneration(BartConfig(**SMALL | options))
    theirs.generation_config.forced_bos_token_id = 0
    return theirs


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_a_model_without_a_head_agrees() -> None:
    check(agreement(BartModel(BartConfig(**SMALL))))


def test_starts_and_forced_tokens_are_the_configurations_and_are_written(tmp_path: Path) -> None:
    theirs = randomised(peer("plain")).eval()
    ours = xt_blocks.from_hugging_face(theirs)
    assert (ours.start_token, ours.pad_value) == (2, 1)
    assert ours.generation == {"eos_token": 2, "forced_tokens": {0: 0, -1: 2}}
    source = torch.randint(3, 37, (2, 5))
    made = ours.generate(source, seq_len=6, eos_token=None, temperature=0.0)
    assert made[:, [0, -1]].tolist() == [[0, 2]] * 2
    xt_blocks.to_hugging_face(ours, tmp_path)
    again = xt_blocks.from_hugging_face(tmp_path)
    assert (again.start_token, again.generation) == (2, ours.generation)
    written = BartForConditionalGeneration.from_pretrained(tmp_path)
    assert (written.generation_config.forced_bos_token_id, written.generation_config.forced_eos_token_id) == (0, 2)
    expected = written.generate(source, max_new_tokens=6, num_beams=1, do_sample=False)[:, 1:]
    assert torch.equal(expected, ours.generate(source, seq_len=6, temperature=0.0)[:, : expected.shape[1]])


def test_places_of_a_prompt_are_steps() -> None:
    config = {"forced_decoder_ids": [[1, 7], [2, None], [3, 9]], "eos_token_id": [4], "pad_token_id": None}
    said = generation(Config(config), decoder_start_token_id=5, eos_token_id=6)
    assert said == {"pad_value": 0, "start_token": 5, "generation": {"eos_token": 4, "forced_tokens": {0: 7, 2: 9}}}
    assert generation_config(said) == {
        "pad_token_id": 0,
        "decoder_start_token_id": 5,
        "eos_token_id": 4,
        "forced_decoder_ids": [[1, 7], [3, 9]],
    }


def test_a_bias_of_the_logits_is_refused() -> None:
    theirs = BartForConditionalGeneration(BartConfig(**SMALL))
    theirs.final_logits_bias[0, 3] = 1.0
    with pytest.raises(UserError, match="final_logits_bias is not all zeros, and there is no place for it here"):
        xt_blocks.from_hugging_face(theirs)
