"""ALBERT: shared layers in one group or several, masked tokens, the model alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AlbertConfig, AlbertForMaskedLM, AlbertForPreTraining, AlbertModel

import xt_blocks
from blockdsl import UserError

from .agreement import agreement, check, randomised

SMALL = {
    "vocab_size": 19,
    "embedding_size": 10,
    "hidden_size": 12,
    "intermediate_size": 27,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "max_position_embeddings": 40,
}
CASES: dict[str, tuple[type, dict[str, Any]]] = {
    "masked tokens": (AlbertForMaskedLM, {}),
    "two groups": (AlbertForMaskedLM, {"num_hidden_groups": 2, "num_hidden_layers": 4, "hidden_act": "gelu"}),
    "three of two layers": (AlbertForMaskedLM, {"inner_group_num": 2, "num_hidden_groups": 3, "embedding_size": 7}),
    "model": (AlbertModel, {"layer_norm_eps": 1e-3, "type_vocab_size": 1}),
}


def peer(case: str) -> Any:
    make, options = CASES[case]
    return make(AlbertConfig(**SMALL | options))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_an_embedding_as_wide_as_the_stack_is_refused() -> None:
    with pytest.raises(UserError, match="embedding_size=12: a linear layer leads from it to as many features, for wh"):
        xt_blocks.from_hugging_face(AlbertModel(AlbertConfig(**SMALL | {"embedding_size": 12})))


def test_the_vector_of_the_first_token() -> None:
    theirs = randomised(peer("model")).eval()
    ours, x = xt_blocks.from_hugging_face(theirs), torch.randint(0, 19, (2, 7))
    torch.testing.assert_close(ours(x, return_pooled=True)[1], theirs(x).pooler_output, atol=1e-5, rtol=0)


def test_a_file_with_the_head_of_the_order_of_sentences() -> None:
    theirs = randomised(AlbertForPreTraining(AlbertConfig(**SMALL))).eval()
    with pytest.warns(UserWarning, match="not loaded, as they are of another head: .*sop_classifier"):
        ours = xt_blocks.from_hugging_face(theirs, architecture="AlbertForMaskedLM")
    x = torch.randint(0, 19, (2, 7))
    torch.testing.assert_close(ours(x), theirs(x).prediction_logits, atol=1e-5, rtol=0)
