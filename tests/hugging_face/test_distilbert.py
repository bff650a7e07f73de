"""DistilBERT: masked tokens and the model alone."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import DistilBertConfig, DistilBertForMaskedLM, DistilBertModel

from .agreement import agreement, check

SMALL = {"vocab_size": 19, "dim": 12, "hidden_dim": 27, "n_layers": 2, "n_heads": 3, "max_position_embeddings": 40}
CASES: dict[str, tuple[type, dict[str, Any]]] = {
    "masked tokens": (DistilBertForMaskedLM, {}),
    "three layers, ReLU, sinusoids": (
        DistilBertForMaskedLM,
        {"n_layers": 3, "activation": "relu", "sinusoidal_pos_embds": True},
    ),
    "model": (DistilBertModel, {"dim": 20, "n_heads": 4, "activation": "gelu_new"}),
}


def peer(case: str) -> Any:
    make, options = CASES[case]
    return make(DistilBertConfig(**SMALL | options))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))
