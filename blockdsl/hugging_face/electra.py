"""ELECTRA (Clark et al., arXiv:2003.10555): BERT with an embedding of its own width; the generator has the logits."""

from __future__ import annotations

from .config import Config
from .encoder import embedding_rows, encoder_settings, head_rows, head_settings, layer_rows
from .family import Component, Family, Weight

PREFIX, HEAD = "electra.", "generator_predictions."


def _read(config: Config) -> dict[str, Component]:
    layers, settings = config.integer("num_hidden_layers"), encoder_settings(config)
    config.ignore(*(f"summary_{name}" for name in ("type", "use_proj", "activation", "last_dropout")))
    settings |= {"emb_dim": config.integer("embedding_size", 128), **head_settings(config, "gelu", False)}
    weights = [
        *embedding_rows(PREFIX),
        Weight("project_emb", PREFIX + "embeddings_project"),
        *layer_rows(PREFIX),
        *head_rows(PREFIX, HEAD + "dense", HEAD + "LayerNorm", "generator_lm_head.bias", "generator_lm_head"),
    ]
    return {"": Component(f"(a f)*{layers}", settings, weights, layers)}


FAMILY = Family(
    model_types=("electra",),
    architectures=("ElectraForMaskedLM", "ElectraForCausalLM"),
    base="ElectraModel",
    prefix=PREFIX,
    source="arXiv:2003.10555",
    read=_read,
    ignored=("embeddings.position_ids",),
)
