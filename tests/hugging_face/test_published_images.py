"""Published configurations of image and text encoders, most of whose keys are left out: how many parameters they have."""

from __future__ import annotations

from typing import Any

import pytest

from blockdsl.hugging_face import read

PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "google/vit-base-patch16-224": (
        {
            "model_type": "vit",
            "architectures": ["ViTForImageClassification"],
            "id2label": {str(label): "" for label in range(1000)},
        },
        86_567_656,
    ),
    "facebook/dinov2-base": ({"model_type": "dinov2", "architectures": ["Dinov2Model"], "image_size": 518}, 86_580_480),
    "facebook/dinov2-with-registers-base": (
        {
            "model_type": "dinov2_with_registers",
            "architectures": ["Dinov2WithRegistersModel"],
            "image_size": 518,
            "patch_size": 14,
        },
        86_583_552,
    ),
    "openai/clip-vit-base-patch32": ({"model_type": "clip", "text_config": {}, "vision_config": {}}, 151_277_313),
    "google/siglip-base-patch16-224": ({"model_type": "siglip", "text_config": {}, "vision_config": {}}, 203_155_970),
}
AROUND = {"clip": 1, "siglip": 2}  # the factor of cosines and their bias, which are of no encoder


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters(name: str) -> None:
    config, parameters = PUBLISHED[name]
    graphs = read(config).graphs().values()
    assert sum(graph.parameters() for graph in graphs) + AROUND.get(config["model_type"], 0) == parameters
