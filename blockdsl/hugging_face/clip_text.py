"""CLIP's text encoder (Radford et al., arXiv:2103.00020): causal, its vector that of the token that ends a text."""

from __future__ import annotations

from typing import Any

from .clip_vision import clip_blocks
from .config import Config
from .family import Component, Family, Row, Weight
from .images import tower_settings

TOWER = "text_model."
BEFORE_IT_WAS_SET = 2  # the end token of configurations whose models take the highest token


def text_settings(config: Config, tower: dict[str, Any], inner: int, length: int, vocabulary: int) -> dict[str, Any]:
    """What CLIP's and SigLIP's text encoders share; the numbers are what a configuration without them means."""
    return {
        **tower,
        "ff_inner": config.integer("intermediate_size", inner),
        "num_tokens": config.integer("vocab_size", vocabulary),
        "max_seq_len": config.integer("max_position_embeddings", length),
    }


def text_rows() -> list[Row]:
    """Embeddings, blocks and the last norm of both."""
    return [
        Weight("token_emb", TOWER + "embeddings.token_embedding"),
        Weight("pos_emb.embedding", TOWER + "embeddings.position_embedding"),
        *clip_blocks(TOWER),
        Weight("attn_layers.norm", TOWER + "final_layer_norm"),
    ]


def clip_text(config: Config, projection: int | None) -> Component:
    """The text encoder.

    Args:
        projection: features of the space shared with images; None: there is no linear layer to it.
    """
    layers = config.integer("num_hidden_layers", 12)
    end = config.integer("eos_token_id", 49407, least=0)
    tower = tower_settings(config, "quick_gelu", 1e-5, dim=512, heads=8)
    settings = text_settings(config, tower, 2048, 77, 49408) | {
        "causal": True,
        "pool": "end",
        "end_token": None if end == BEFORE_IT_WAS_SET else end,
    }
    if projection is None:
        settings["return_only_embed"] = True
    else:
        settings |= {"logits_dim": projection, "logits_bias": False}
    rows = [*text_rows(), Weight("to_logits", "text_projection")]
    return Component(f"(a f)*{layers}", settings, rows, layers)


def _read(config: Config) -> dict[str, Component]:
    projection = config.integer("projection_dim", 512)
    return {"": clip_text(config, None if config.base else projection)}


FAMILY = Family(
    model_types=("clip_text_model",),
    architectures=("CLIPTextModelWithProjection",),
    base="CLIPTextModel",
    prefix=TOWER,
    source="arXiv:2103.00020",
    read=_read,
    ignored=("embeddings.position_ids",),
)
