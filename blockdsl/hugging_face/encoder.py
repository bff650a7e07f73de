"""What encoders in the manner of BERT share: norms after each add, an embedding of tokens, positions and types."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .config import Config
from .family import Row, Tied, Weight

LAYER = "encoder.layer.{i}."

UNUSED_HEADS = ("seq_relationship.weight", "seq_relationship.bias", "pooler.dense.weight", "pooler.dense.bias")
"""Of the next sentence, and of the vector that it is told from: files of other classes have them."""


def encoder_settings(config: Config, activation: str = "gelu") -> dict[str, Any]:
    """Width, heads, layers, embedding and positions.

    Args:
        activation: of the feedforwards, where the configuration does not say.
    """
    dim, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    config.only("position_embedding_type", "absolute", "positions are relative")
    config.only("add_cross_attention", False, "blocks of cross-attention beside those of the encoder")
    types = config.integer("type_vocab_size", 2, least=0)
    return {
        "dim": dim,
        "heads": heads,
        "attn_dim_head": config.per_head(dim, heads, "hidden_size", "num_attention_heads"),
        "attn_qkv_bias": True,
        "attn_out_bias": True,
        "causal": config.flag("is_decoder", False),
        "pre_norm": False,
        "norm_eps": config.number("layer_norm_eps", 1e-12),
        "ff_inner": config.integer("intermediate_size"),
        "ff_activation": config.activation("hidden_act", activation),
        "num_tokens": config.integer("vocab_size"),
        "max_seq_len": config.integer("max_position_embeddings", 512),
        "post_emb_norm": True,
        **({"num_token_types": types} if types else {}),
    }


def head_settings(config: Config, activation: str, pooler: bool) -> dict[str, Any]:
    """Tied logits with a bias, after a linear layer, an activation and a norm; or the vector of the first token.

    Args:
        activation: of the head.
        pooler: whether the class without a head makes such a vector, where the configuration does not say.
    """
    config.only("tie_word_embeddings", True, "logits of their own")
    has_pooler = config.flag("add_pooling_layer", pooler)
    if config.base:
        return {"return_only_embed": True, "pooler": has_pooler}
    return {"tie_embedding": True, "logits_scale": 1.0, "logits_bias": True, "logits_transform": activation}


def without_pooler(config: Mapping[str, Any], names: Collection[str]) -> Mapping[str, Any]:
    """The configuration of a file of a class without a head, which may have been made without a pooler.

    That is an argument of the class in transformers, which no configuration has.
    """
    has = any(name.endswith(("pooler.weight", "pooler.dense.weight")) for name in names)
    return config if has else {**config, "add_pooling_layer": False}


def embedding_rows(prefix: str) -> list[Row]:
    """Tokens, positions, types and their norm."""
    where = f"{prefix}embeddings."
    return [
        Weight("token_emb", where + "word_embeddings"),
        Weight("pos_emb.embedding", where + "position_embeddings"),
        Weight("token_type_emb", where + "token_type_embeddings"),
        Weight("post_emb_norm", where + "LayerNorm"),
    ]


def layer_rows(prefix: str) -> list[Row]:
    """Attention and a feedforward, each with the norm after it."""
    layer = prefix + LAYER
    return [
        Weight("a.layer.to_qkv", tuple(f"{layer}attention.self.{part}" for part in ("query", "key", "value"))),
        Weight("a.layer.output.to_out", layer + "attention.output.dense"),
        Weight("a.norm", layer + "attention.output.LayerNorm"),
        Weight("f.layer.to_hidden", layer + "intermediate.dense"),
        Weight("f.layer.to_out", layer + "output.dense"),
        Weight("f.norm", layer + "output.LayerNorm"),
    ]


def head_rows(prefix: str, transform: str, norm: str, bias: str, decoder: str) -> list[Row]:
    """Of masked tokens, where the bias is known by two names.

    Args:
        prefix: of the model without a head.
        transform, norm: their linear layer and norm before the logits.
        bias: the whole name of the logits' bias.
        decoder: their linear layer that gives the logits.
    """
    return [
        Weight("logits_transform.project", transform),
        Weight("logits_transform.norm", norm),
        Weight("logits_bias", bias),
        Tied(f"{decoder}.weight", f"{prefix}embeddings.word_embeddings.weight"),
        *([Tied(f"{decoder}.bias", bias)] if f"{decoder}.bias" != bias else []),
    ]
