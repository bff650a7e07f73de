"""CLIP: encoders of different widths, the space that they share, float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from .agreement import agreement, check
from .test_clip_text import SMALL as TEXT
from .test_clip_vision import SMALL as IMAGE

CASES: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {},
    "widths": {"text": {"hidden_size": 18, "intermediate_size": 31}, "image": {"num_hidden_layers": 3}},
    "options": {
        "text": {"eos_token_id": 2, "hidden_act": "gelu", "num_attention_heads": 2},
        "image": {"image_size": 14, "hidden_act": "gelu_new", "num_channels": 1},
    },
}


def peer(case: str) -> CLIPModel:
    own = CASES[case]
    text, image = TEXT | own.get("text", {}), IMAGE | own.get("image", {})
    return CLIPModel(CLIPConfig(text_config=text, vision_config=image, projection_dim=5))


@pytest.mark.parametrize("case", CASES)
def test_agrees(case: str) -> None:
    check(agreement(peer(case)))


def test_agrees_in_float64() -> None:
    check(agreement(peer("widths"), dtype=torch.float64, attention="sdpa"), atol=1e-10)
