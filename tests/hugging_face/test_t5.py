"""T5: 1.0 with ReLU and tied logits, 1.1 gated, tied by recent releases or with logits of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration, T5Model

import xt_blocks

from .agreement import agreement, check, difference, randomised

SMALL = {
    "vocab_size": 37,
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 3,
    "decoder_start_token_id": 0,
}
CASES: dict[str, dict[str, Any]] = {
    "1.0": {},
    "1.0, few buckets": {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 6, "num_heads": 4},
    "1.0, deeper encoder": {
        "num_layers": 3,
        "num_decoder_layers": 2,
        "layer_norm_epsilon": 1e-3,
        "decoder_start_token_id": 5,
    },
    "1.1, tied": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "d_ff": 21},
    "1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "untied": True},
    "scaled logits of its own": {"untied": True, "d_model": 15},
    "gated silu": {"feed_forward_proj": "gated-silu", "d_kv": 8},
}


def peer(case: str) -> Any:
    """The model of a case; `untied` gives it logits of its own, as checkpoints of 1.1 have."""
    options = dict(CASES[case])
    untied = options.pop("untied", False)
    theirs = T5ForConditionalGeneration(T5Config(**SMALL | options))
    if untied:
        theirs.lm_head.weight = nn.Parameter(torch.empty_like(theirs.shared.weight))
    return theirs


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_a_model_without_a_head_agrees() -> None:
    check(agreement(T5Model(T5Config(**SMALL))))


def test_a_model_at_hand_and_its_encoder_alone() -> None:
    config = T5Config(**SMALL)
    tokens = torch.randint(0, 37, (2, 9))
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    theirs = randomised(T5ForConditionalGeneration(config)).eval()
    ours = xt_blocks.from_hugging_face(theirs)
    assert ours.decoder.net.tie_embedding
    assert ours.encoder.token_emb is ours.decoder.net.token_emb
    assert (ours.start_token, ours.pad_value, ours.generation) == (0, 0, {"eos_token": 1})
    encoder = randomised(T5EncoderModel(config)).eval()
    alone = xt_blocks.from_hugging_face(encoder)
    with torch.no_grad():
        expected = encoder(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        assert difference(alone(tokens, mask=mask)[mask], expected[mask]) < 1e-5
    assert sum(p.numel() for p in alone.parameters()) == alone.graph.parameters() == encoder.num_parameters()
