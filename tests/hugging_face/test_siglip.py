"""SigLIP: encoders whose vectors are of one width, a bias of the logits, float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import SiglipConfig, SiglipModel

from .agreement import agreement, check
from .test_siglip_text import SMALL as TEXT
from .test_siglip_vision import SMALL as IMAGE

CASES: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {},
    "widths": {"text": {"hidden_size": 18, "projection_size": 24}, "image": {"num_hidden_layers": 3}},
    "options": {
        "text": {"hidden_act": "gelu", "num_attention_heads": 2},
        "image": {"image_size": 14, "hidden_act": "relu", "num_channels": 1},
    },
}


def peer(case: str) -> SiglipModel:
    own = CASES[case]
    text, image = TEXT | own.get("text", {}), IMAGE | own.get("image", {})
    return SiglipModel(SiglipConfig(text_config=text, vision_config=image))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_agrees_in_float64() -> None:
    check(agreement(peer("widths"), dtype=torch.float64, attention="sdpa"), atol=1e-10)
