"""RoBERTa: masked tokens, positions after the padding token's number, the model alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import RobertaConfig, RobertaForCausalLM, RobertaForMaskedLM, RobertaModel

import xt_blocks

from .agreement import agreement, check, randomised

SMALL = {
    "vocab_size": 19,
    "hidden_size": 12,
    "intermediate_size": 27,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 40,
    "type_vocab_size": 1,
}
CASES: dict[str, tuple[type, dict[str, Any]]] = {
    "masked tokens": (RobertaForMaskedLM, {}),
    "padding by the first token, three layers": (
        RobertaForMaskedLM,
        {"pad_token_id": 0, "num_hidden_layers": 3, "hidden_act": "relu", "layer_norm_eps": 1e-3},
    ),
    "model": (RobertaModel, {"hidden_size": 20, "num_attention_heads": 4, "type_vocab_size": 2, "pad_token_id": 2}),
}


def peer(case: str) -> Any:
    make, options = CASES[case]
    return make(RobertaConfig(**SMALL | options))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_a_causal_one_is_what_its_forward_says() -> None:
    """Their `generate` counts positions from the mask, without the offset that their forward adds."""
    theirs = RobertaForCausalLM(RobertaConfig(**SMALL | {"is_decoder": True, "pad_token_id": 0}))
    check(replace(agreement(theirs), tokens=None))
    ours, x = xt_blocks.from_hugging_face(theirs), torch.randint(1, 19, (2, 11))
    options = {"temperature": 0.0, "suppress_tokens": [0]}
    found = xt_blocks.AutoregressiveWrapper(ours).generate(x, 20, **options)
    for place in range(20):
        with torch.no_grad():
            logits = theirs(torch.cat((x, found[:, :place]), dim=1)).logits[:, -1, 1:]
        assert torch.equal(found[:, place], logits.argmax(dim=-1) + 1)


def test_positions_begin_after_the_padding_tokens_number() -> None:
    theirs = randomised(peer("model")).eval()
    ours = xt_blocks.from_hugging_face(theirs)
    assert ours.max_seq_len == 40 - 3
    x = torch.randint(3, 19, (1, 37))
    expected = theirs(x)
    out, vector = ours(x, return_pooled=True)
    torch.testing.assert_close(out, expected.last_hidden_state, atol=1e-5, rtol=0)
    torch.testing.assert_close(vector, expected.pooler_output, atol=1e-5, rtol=0)
