"""CLIP (Radford et al., arXiv:2103.00020): an image and a text encoder, and the factor of their vectors' cosines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .clip_text import clip_text
from .clip_vision import clip_image
from .config import Config
from .family import Component, Family, Reordered, Row, Weight


def both(image: Component, text: Component, rows: Sequence[Row]) -> dict[str, Component]:
    """Two encoders, with rows of the model around them."""
    return {"image": replace(image, weights=[*image.weights, *rows]), "text": text}


def _read(config: Config) -> dict[str, Component]:
    projection = config.integer("projection_dim", 512)
    config.ignore("logit_scale_init_value")
    image, text = config.nested("vision_config"), config.nested("text_config")
    for tower in (image, text):
        tower.ignore("projection_dim")
    scale = Weight("model.logit_scale", "logit_scale", Reordered(()))
    return both(clip_image(image, projection), clip_text(text, projection), [scale])


FAMILY = Family(
    model_types=("clip",),
    architectures=("CLIPModel",),
    base="CLIPModel",
    prefix="",
    source="arXiv:2103.00020",
    read=_read,
    ignored=("embeddings.position_ids",),
)
