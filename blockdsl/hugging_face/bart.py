"""BART (Lewis et al., arXiv:1910.13461), and mBART (Liu et al., arXiv:2001.08210), which is pre-norm.

One embedding serves the encoder, the decoder and the logits. Positions are learned and start at row 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .config import Config
from .encoder_decoder import generation
from .family import Component, Family, Row, Tied, Weight, Zeros

OFFSET = 2  # rows of the table of positions that no token reads


def _read(config: Config) -> dict[str, Component]:
    config.only("is_decoder", False, "a decoder alone")
    config.only("tie_word_embeddings", True, "logits of their own")
    config.only("normalize_before", config.model_type == "mbart", "the other order of norms")
    config.only("add_final_layer_norm", config.model_type == "mbart", "another norm of the output")
    config.only("normalize_embedding", True, "no norm of the embedding")
    config.only("static_position_embeddings", False, "positions by sinusoids")
    config.ignore("encoder_layerdrop", "decoder_layerdrop", "init_std")  # of training
    config.ignore("add_bias_logits", "num_hidden_layers")  # nothing reads them
    vocabulary = config.integer("vocab_size", 50265)
    rows: list[Row] = [Weight("token_emb", "model.shared"), Tied("model.encoder.embed_tokens.weight", SHARED)]
    encoder = _stack(config, "encoder", "(a f)", {"return_only_embed": True}, rows)
    rows = [Tied("model.decoder.embed_tokens.weight", SHARED)]
    if not config.base:
        rows += [Tied("lm_head.weight", SHARED), Zeros("final_logits_bias", (1, vocabulary))]
    logits = {"causal": True, "tie_embedding": True, "logits_scale": 1.0}
    decoder = _stack(config, "decoder", "(a c f)", logits, rows)
    start = None if config.model_type == "mbart" else 2  # mBART's is a language
    tokens = {"pad_token_id": 1, "eos_token_id": 2, "forced_eos_token_id": 2, "decoder_start_token_id": start}
    arguments = generation(config, **tokens)
    return {"encoder": encoder, "decoder": replace(decoder, arguments={**arguments, "tie_token_emb": True})}


SHARED = "model.shared.weight"


def _stack(config: Config, side: str, layer: str, own: Mapping[str, Any], rows: list[Row]) -> Component:
    dim, heads = config.integer("d_model", 1024), config.integer(f"{side}_attention_heads", 16)
    layers, pre_norm = config.integer(f"{side}_layers", 12), config.model_type == "mbart"
    settings = {
        "dim": dim,
        "heads": heads,
        "attn_dim_head": config.per_head(dim, heads, "d_model", f"{side}_attention_heads"),
        "attn_qkv_bias": True,
        "attn_out_bias": True,
        "pre_norm": pre_norm,
        "ff_inner": config.integer(f"{side}_ffn_dim", 4096),
        "ff_activation": config.activation("activation_function", "gelu"),
        "num_tokens": config.integer("vocab_size", 50265),
        "max_seq_len": config.integer("max_position_embeddings", 1024),
        "pos_offset": OFFSET,
        "embed_scale": dim**0.5 if config.flag("scale_embedding", False) else 1.0,
        "post_emb_norm": True,
        **own,
    }
    name = f"model.{side}.layers.{{i}}."
    weights: list[Row] = [
        *rows,
        Weight("pos_emb.embedding", f"model.{side}.embed_positions"),
        Weight("post_emb_norm", f"model.{side}.layernorm_embedding"),
        Weight("a.norm", name + "self_attn_layer_norm"),
        Weight("a.layer.to_qkv", tuple(f"{name}self_attn.{part}_proj" for part in "qkv")),
        Weight("a.layer.output.to_out", name + "self_attn.out_proj"),
        Weight("f.norm", name + "final_layer_norm"),
        Weight("f.layer.to_hidden", name + "fc1"),
        Weight("f.layer.to_out", name + "fc2"),
    ]
    if "c" in layer:
        weights += [
            Weight("c.norm", name + "encoder_attn_layer_norm"),
            Weight("c.layer.to_q", name + "encoder_attn.q_proj"),
            Weight("c.layer.to_kv", tuple(f"{name}encoder_attn.{part}_proj" for part in "kv")),
            Weight("c.layer.output.to_out", name + "encoder_attn.out_proj"),
        ]
    if pre_norm:
        weights.append(Weight("attn_layers.norm", f"model.{side}.layer_norm"))
    return Component(f"{layer}*{layers}", settings, weights, layers)


FAMILY = Family(
    model_types=("bart", "mbart"),
    architectures=("BartForConditionalGeneration", "MBartForConditionalGeneration"),
    base="BartModel",
    prefix="model.",
    source="arXiv:1910.13461",
    read=_read,
)
