"""ELECTRA: the generator's masked tokens, the model alone, with an embedding of its own width or the stack's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import ElectraConfig, ElectraForCausalLM, ElectraForMaskedLM, ElectraForPreTraining, ElectraModel

import xt_blocks
from blockdsl import UserError

from .agreement import agreement, check, randomised

SMALL = {
    "vocab_size": 19,
    "embedding_size": 10,
    "hidden_size": 12,
    "intermediate_size": 27,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 40,
}
CASES: dict[str, tuple[type, dict[str, Any]]] = {
    "generator": (ElectraForMaskedLM, {}),
    "generator as wide as the stack": (
        ElectraForMaskedLM,
        {"embedding_size": 12, "hidden_act": "relu", "num_hidden_layers": 3, "layer_norm_eps": 1e-3},
    ),
    "causal": (ElectraForCausalLM, {"is_decoder": True}),
    "model": (ElectraModel, {"type_vocab_size": 3}),
}


def peer(case: str) -> Any:
    make, options = CASES[case]
    return make(ElectraConfig(**SMALL | options))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_the_discriminator_without_its_head() -> None:
    theirs = randomised(ElectraForPreTraining(ElectraConfig(**SMALL))).eval()
    with pytest.raises(UserError, match=r"the head of ElectraForPreTraining .* architecture='ElectraModel' leaves"):
        xt_blocks.from_hugging_face(theirs)
    with pytest.warns(UserWarning, match=r"not loaded.*discriminator_predictions\.dense\.weight"):
        ours = xt_blocks.from_hugging_face(theirs, architecture="ElectraModel")
    x = torch.randint(0, 19, (2, 7))
    torch.testing.assert_close(ours(x), theirs.electra(x).last_hidden_state, atol=1e-5, rtol=0)
