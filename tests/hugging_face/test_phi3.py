"""Phi-3: joined weights, a share of each head rotated, LongRoPE on either side of the original length, windows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM

import xt_blocks
from blockdsl.hugging_face import read

from .agreement import agreement, check, difference, randomised

SMALL: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 32,
    "intermediate_size": 27,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "original_max_position_embeddings": 64,
    "pad_token_id": 0,
}
FACTORS = {"short_factor": [1.0, 1.25, 1.5, 2.0], "long_factor": [1.5, 3.0, 4.5, 8.0]}
LONG: dict[str, Any] = {"rope_type": "longrope", "rope_theta": 100.0, "partial_rotary_factor": 1.0, **FACTORS}
CASES: dict[str, dict[str, Any]] = {
    "grouped": {},
    "a share, tied": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.75},
        "tie_word_embeddings": True,
        "num_key_value_heads": 1,
    },
    "window": {"sliding_window": 5, "rms_norm_eps": 1e-6, "hidden_act": "gelu"},
    "longrope, short texts": {"rope_parameters": LONG},
    "longrope, long texts": {"rope_parameters": LONG, "original_max_position_embeddings": 4},
    "longrope, a share": {
        "rope_parameters": {
            **LONG,
            **{"partial_rotary_factor": 0.5, "short_factor": [1.0, 2.0], "long_factor": [1.5, 6.0]},
            **{"attention_factor": 1.2},
        },
        "original_max_position_embeddings": 4,
    },
}


def peer(case: str) -> Phi3ForCausalLM:
    return Phi3ForCausalLM(Phi3Config(**SMALL | CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_texts_that_grow_past_the_original_length_are_read_again() -> None:
    """Theirs drops its cache there too. Rows are of one length: theirs has the frequencies of the longest for all."""
    config = Phi3Config(**SMALL | {"rope_parameters": LONG, "original_max_position_embeddings": 12})
    theirs = randomised(Phi3ForCausalLM(config)).eval()
    ours = xt_blocks.from_hugging_face(theirs)
    tokens = torch.randint(1, 19, (2, 30))
    with torch.no_grad():
        for length in (5, 12, 13, 30):
            assert difference(ours(tokens[:, :length]), theirs(tokens[:, :length]).logits) < 1e-5
    options = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    expected = theirs.generate(tokens[:, :7], **options)[:, 7:]
    for cache_kv in (True, False):
        found = xt_blocks.AutoregressiveWrapper(ours).generate(tokens[:, :7], 20, temperature=0.0, cache_kv=cache_kv)
        assert torch.equal(found, expected)


def test_an_older_file_says_the_same() -> None:
    plain = {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], **SMALL}
    new = read(plain | {"rope_parameters": LONG})
    old = read(plain | {"rope_theta": 100.0, "rope_scaling": {"type": "su", **FACTORS}})
    assert old.texts == new.texts
    assert "rotary_long_factors=(1.5, 3.0, 4.5, 8.0)" in new.texts[""]
