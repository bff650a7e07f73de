"""BERT (Devlin et al., arXiv:1810.04805): norms after each add, token types, tied logits after a transform."""

from __future__ import annotations

from .config import Config
from .encoder import (
    UNUSED_HEADS,
    embedding_rows,
    encoder_settings,
    head_rows,
    head_settings,
    layer_rows,
    without_pooler,
)
from .family import Component, Family, Weight

PREFIX, HEAD = "bert.", "cls.predictions."


def _read(config: Config) -> dict[str, Component]:
    layers, settings = config.integer("num_hidden_layers"), encoder_settings(config)
    config.ignore("directionality", *(f"pooler_{name}" for name in ("fc_size", "num_attention_heads", "num_fc_layers")))
    config.ignore("pooler_size_per_head", "pooler_type")  # of the multilingual ones, which nothing reads
    settings |= head_settings(config, settings["ff_activation"], True)
    transform = HEAD + "transform."
    weights = [
        *embedding_rows(PREFIX),
        *layer_rows(PREFIX),
        Weight("pooler", PREFIX + "pooler.dense"),
        *head_rows(PREFIX, transform + "dense", transform + "LayerNorm", HEAD + "bias", HEAD + "decoder"),
    ]
    return {"": Component(f"(a f)*{layers}", settings, weights, layers)}


FAMILY = Family(
    model_types=("bert",),
    architectures=("BertForMaskedLM", "BertLMHeadModel"),
    base="BertModel",
    prefix=PREFIX,
    source="arXiv:1810.04805",
    read=_read,
    ignored=("embeddings.position_ids",),
    unused=UNUSED_HEADS,
    amended=without_pooler,
)
