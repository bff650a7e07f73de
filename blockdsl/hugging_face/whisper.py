"""Whisper (Radford et al., arXiv:2212.04356): an encoder of frames after two convolutions; keys have no bias.

Their encoder's table of positions is of sinusoids, and is not trained; ours is a table like any other.
A source is (batch, frames, mel bins) here, their input_features with the last two axes exchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .config import Config
from .encoder_decoder import generation
from .family import Component, Family, Row, Tied, Weight

TOKENS = {
    "pad_token_id": 50256,
    "eos_token_id": 50256,
    "decoder_start_token_id": 50257,
    "begin_suppress_tokens": (220, 50256),
}
EMBEDDING = "model.decoder.embed_tokens"
_OF_TRAINING = ("apply_spec_augment", *(f"mask_{what}" for what in ("time_prob", "time_length", "time_min_masks")))
_OF_CLASSES = ("use_weighted_layer_sum", "classifier_proj_size")


def _read(config: Config) -> dict[str, Component]:
    config.only("tie_word_embeddings", True, "logits of their own")
    config.ignore("init_std", "encoder_layerdrop", "decoder_layerdrop")  # of training
    config.ignore("num_hidden_layers", "is_multilingual", "scale_embedding")  # nothing reads them
    config.ignore(*_OF_TRAINING, *(f"mask_feature_{what}" for what in ("prob", "length", "min_masks")))
    config.ignore(*_OF_CLASSES, "median_filter_width")  # heads for classes, and times of words
    heard = {
        "dim_in": config.integer("num_mel_bins", 80),
        "conv_stem": True,
        "max_seq_len": config.integer("max_source_positions", 1500),
    }
    written = {
        "causal": True,
        "num_tokens": config.integer("vocab_size", 51865),
        "max_seq_len": config.integer("max_target_positions", 448),
        "tie_embedding": True,
        "logits_scale": 1.0,
    }
    convolutions = [Weight(f"conv_stem.conv{i}", f"model.encoder.conv{i}") for i in (1, 2)]
    embedding = Weight("token_emb", EMBEDDING), Tied("proj_out.weight", EMBEDDING + ".weight")
    encoder = _stack(config, "encoder", "(a f)", heard, convolutions)
    decoder = _stack(config, "decoder", "(a c f)", written, embedding)
    return {"encoder": encoder, "decoder": replace(decoder, arguments=generation(config, **TOKENS))}


def _stack(config: Config, side: str, layer: str, own: Mapping[str, Any], rows: Sequence[Row]) -> Component:
    dim, heads = config.integer("d_model", 384), config.integer(f"{side}_attention_heads", 6)
    layers = config.integer(f"{side}_layers", 4)
    settings = {
        "dim": dim,
        "heads": heads,
        "attn_dim_head": config.per_head(dim, heads, "d_model", f"{side}_attention_heads"),
        "attn_qkv_bias": True,
        "attn_k_bias": False,
        "attn_out_bias": True,
        "ff_inner": config.integer(f"{side}_ffn_dim", 1536),
        "ff_activation": config.activation("activation_function", "gelu"),
        **own,
    }
    name = f"model.{side}.layers.{{i}}."
    weights: list[Row] = [
        *rows,
        Weight("pos_emb.embedding", f"model.{side}.embed_positions"),
        Weight("a.norm", name + "self_attn_layer_norm"),
        *(Weight(f"a.layer.to_qkv.parts.{i}", f"{name}self_attn.{part}_proj") for i, part in enumerate("qkv")),
        Weight("a.layer.output.to_out", name + "self_attn.out_proj"),
        Weight("f.norm", name + "final_layer_norm"),
        Weight("f.layer.to_hidden", name + "fc1"),
        Weight("f.layer.to_out", name + "fc2"),
        Weight("attn_layers.norm", f"model.{side}.layer_norm"),
    ]
    if "c" in layer:
        weights += [
            Weight("c.norm", name + "encoder_attn_layer_norm"),
            Weight("c.layer.to_q", name + "encoder_attn.q_proj"),
            *(Weight(f"c.layer.to_kv.parts.{i}", f"{name}encoder_attn.{part}_proj") for i, part in enumerate("kv")),
            Weight("c.layer.output.to_out", name + "encoder_attn.out_proj"),
        ]
    return Component(f"{layer}*{layers}", settings, weights, layers)


FAMILY = Family(
    model_types=("whisper",),
    architectures=("WhisperForConditionalGeneration",),
    base="WhisperModel",
    prefix="model.",
    source="arXiv:2212.04356",
    read=_read,
)
