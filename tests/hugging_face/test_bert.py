"""BERT: masked tokens, a causal one, and the model alone with its vector of the first token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining, BertLMHeadModel, BertModel

import xt_blocks
from blockdsl import UserError

from .agreement import agreement, check, randomised

SMALL = {
    "vocab_size": 19,
    "hidden_size": 12,
    "intermediate_size": 27,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 40,
}
CASES: dict[str, tuple[type, dict[str, Any]]] = {
    "masked tokens": (BertForMaskedLM, {}),
    "three layers, ReLU, another eps": (
        BertForMaskedLM,
        {"num_hidden_layers": 3, "hidden_act": "relu", "layer_norm_eps": 1e-3, "type_vocab_size": 3},
    ),
    "causal": (BertLMHeadModel, {"is_decoder": True, "hidden_act": "gelu_new"}),
    "model": (BertModel, {"hidden_size": 20, "num_attention_heads": 4, "type_vocab_size": 1}),
}


def peer(case: str) -> Any:
    make, options = CASES[case]
    return make(BertConfig(**SMALL | options))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_types_of_tokens_and_the_vector_of_the_first() -> None:
    theirs = randomised(BertModel(BertConfig(**SMALL))).eval()
    ours = xt_blocks.from_hugging_face(theirs)
    x, types = torch.randint(0, 19, (2, 7)), torch.randint(0, 2, (2, 7))
    expected = theirs(x, token_type_ids=types)
    out, vector = ours(x, token_types=types, return_pooled=True)
    torch.testing.assert_close(out, expected.last_hidden_state, atol=1e-5, rtol=0)
    torch.testing.assert_close(vector, expected.pooler_output, atol=1e-5, rtol=0)


def test_a_model_without_a_pooler() -> None:
    theirs = randomised(BertModel(BertConfig(**SMALL), add_pooling_layer=False)).eval()
    ours, x = xt_blocks.from_hugging_face(theirs), torch.randint(0, 19, (2, 7))
    assert ours.pooler is None
    torch.testing.assert_close(ours(x), theirs(x).last_hidden_state, atol=1e-5, rtol=0)


def test_a_file_with_both_heads() -> None:
    theirs = randomised(BertForPreTraining(BertConfig(**SMALL))).eval()
    with pytest.raises(UserError, match="the head of BertForPreTraining cannot be built here"):
        xt_blocks.from_hugging_face(theirs)
    with pytest.warns(UserWarning, match="not loaded, as they are of another head: .*seq_relationship"):
        ours = xt_blocks.from_hugging_face(theirs, architecture="BertForMaskedLM")
    x = torch.randint(0, 19, (2, 7))
    torch.testing.assert_close(ours(x), theirs(x).prediction_logits, atol=1e-5, rtol=0)
