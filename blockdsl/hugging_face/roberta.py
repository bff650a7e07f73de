"""RoBERTa (Liu et al., arXiv:1907.11692): BERT whose positions begin after the padding token's number.

Theirs counts the tokens that are not the padding token, ours those from a row's first real one: the same wherever
padding is at the ends of a row.
"""

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

PREFIX, HEAD = "roberta.", "lm_head."


def _read(config: Config) -> dict[str, Component]:
    layers, settings = config.integer("num_hidden_layers"), encoder_settings(config)
    offset = config.integer("pad_token_id", 1, least=0) + 1
    settings |= {"pos_offset": offset, "max_seq_len": settings["max_seq_len"] - offset}
    settings |= head_settings(config, "gelu", True)
    weights = [
        *embedding_rows(PREFIX),
        *layer_rows(PREFIX),
        Weight("pooler", PREFIX + "pooler.dense"),
        *head_rows(PREFIX, HEAD + "dense", HEAD + "layer_norm", HEAD + "bias", HEAD + "decoder"),
    ]
    return {"": Component(f"(a f)*{layers}", settings, weights, layers)}


FAMILY = Family(
    model_types=("roberta",),
    architectures=("RobertaForMaskedLM", "RobertaForCausalLM"),
    base="RobertaModel",
    prefix=PREFIX,
    source="arXiv:1907.11692",
    read=_read,
    ignored=("embeddings.position_ids",),
    unused=UNUSED_HEADS,
    amended=without_pooler,
)
