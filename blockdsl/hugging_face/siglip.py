"""SigLIP (Zhai et al., arXiv:2303.15343): an image and a text encoder, the factor of their vectors' cosines, a bias."""

from __future__ import annotations

from dataclasses import replace

from .clip import both
from .config import Config
from .family import Component, Family, Weight
from .siglip_text import siglip_text
from .siglip_vision import siglip_image


def _read(config: Config) -> dict[str, Component]:
    image = siglip_image(config.nested("vision_config"))
    text = siglip_text(config.nested("text_config"))
    if "pool" not in image.settings:
        raise config.lacks("vision_config.vision_use_head=False", "the image encoder gives no vector")
    image = replace(image, arguments={"logit_bias": 0.0})
    return both(image, text, [Weight(f"model.{name}", name) for name in ("logit_scale", "logit_bias")])


FAMILY = Family(
    model_types=("siglip",),
    architectures=("SiglipModel",),
    base="SiglipModel",
    prefix="",
    source="arXiv:2303.15343",
    read=_read,
    ignored=("embeddings.position_ids",),
)
