"""What decoders in the manner of LLaMA share: heads, rotary positions, logits, and the names of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..language.fold import Loop, fold
from .config import Config
from .family import Row, Tied, Weight

LAYER = "model.layers.{i}."


def repeated(layers: Sequence[str]) -> str:
    """The pattern of layers, each `a f` or the like, with what repeats written once."""

    def text(part: int | Loop) -> str:
        return layers[part] if isinstance(part, int) else f"({' '.join(map(text, part.body))})*{part.count}"

    return " ".join(map(text, fold(layers, lambda index: len(layers[index]))))


def decoder_sizes(config: Config) -> dict[str, Any]:
    """Width, heads, vocabulary and length."""
    dim, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    kv_heads = config.integer("num_key_value_heads", heads)
    return {
        "dim": dim,
        "heads": heads,
        "attn_dim_head": config.integer("head_dim", dim // heads),
        "attn_kv_heads": None if kv_heads == heads else kv_heads,
        "causal": True,
        "num_tokens": config.integer("vocab_size"),
        "max_seq_len": config.integer("max_position_embeddings", 2048),
    }


def rotary_settings(config: Config, dim_head: int, theta: float = 10000.0, share: float = 1.0) -> dict[str, Any]:
    """Rotary positions, from `rope_parameters` or, in files of older releases, `rope_theta` and `rope_scaling`."""
    rope = config.nested("rope_parameters")
    config.only("rope_scaling", None, "rotary positions are scaled")
    rope.only("rope_type", "default", "rotary positions are scaled")
    share = rope.number("partial_rotary_factor", config.number("partial_rotary_factor", share))
    return {
        "rotary_pos_emb": True,
        "rotary_emb_dim": int(dim_head * share),
        "rotary_theta": rope.number("rope_theta", config.number("rope_theta", theta)),
    }


def logits_settings(config: Config, tied: bool = False, bias: bool = False) -> dict[str, Any]:
    """Logits as they come, by a matrix of their own or the embedding's; none of a class without a head.

    Args:
        tied: whether they are the embedding's where the configuration does not say.
        bias: whether they have one.
    """
    tied = config.flag("tie_word_embeddings", tied)
    if config.base:
        return {"return_only_embed": True}
    return {"tie_embedding": True, "logits_scale": 1.0, "logits_bias": bias} if tied else {"logits_bias": bias}


def decoder_rows(config: Config, sizes: dict[str, Any], tied: bool = False) -> list[Row]:
    """The weights of a decoder whose norms are before attention and before a gated feedforward.

    Args:
        sizes: of `decoder_sizes`.
        tied: as in `logits_settings`.
    """
    return [
        Weight("token_emb", "model.embed_tokens"),
        Weight("a.norm", LAYER + "input_layernorm"),
        *attention_rows(sizes),
        Weight("f.norm", LAYER + "post_attention_layernorm"),
        *gated_rows(),
        Weight("attn_layers.norm", "model.norm"),
        *logits_rows(config, tied),
    ]


def attention_rows(sizes: dict[str, Any]) -> list[Row]:
    """Queries, keys and values, each their own, and the output; biases where there are some."""
    query = sizes["heads"] * sizes["attn_dim_head"]
    keys = (sizes["attn_kv_heads"] or sizes["heads"]) * sizes["attn_dim_head"]
    parts = tuple(f"{LAYER}self_attn.{part}_proj" for part in "qkv")
    return [
        Weight("a.layer.to_qkv", parts, sizes=(query, keys, keys)),
        Weight("a.layer.output.to_out", LAYER + "self_attn.o_proj"),
    ]


def gated_rows() -> list[Row]:
    """A gated feedforward: the gate comes last here."""
    return [
        Weight("f.layer.to_hidden", (LAYER + "mlp.up_proj", LAYER + "mlp.gate_proj")),
        Weight("f.layer.to_out", LAYER + "mlp.down_proj"),
    ]


def logits_rows(config: Config, tied: bool = False) -> list[Row]:
    """Of the head."""
    if config.flag("tie_word_embeddings", tied):
        return [Tied("lm_head.weight", "model.embed_tokens.weight")]
    return [Weight("to_logits", "lm_head")]
