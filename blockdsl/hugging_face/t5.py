"""T5 1.0 and 1.1 (Raffel et al., arXiv:1910.10683): RMSNorm, one bias by distance for all blocks, scores as they are.

Its own configurations call 1.1's logits untied, and releases of transformers after 5 tie all; the weights decide then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from .config import Config
from .encoder_decoder import generation
from .family import Component, Family, Row, Tied, Weight


def _read(config: Config) -> dict[str, Component]:
    config.only("is_decoder", False, "a decoder alone")
    config.ignore("classifier_dropout", "n_positions")  # positions are relative, of any number
    layers = config.integer("num_layers", 6)
    rows: list[Row] = [Weight("token_emb", "shared"), Tied("encoder.embed_tokens.weight", "shared.weight")]
    encoder = _stack(config, "encoder", "(a f)", layers, {"return_only_embed": True}, rows)
    if config.architecture == "T5EncoderModel":
        config.ignore("num_decoder_layers", "tie_word_embeddings", "scale_decoder_outputs")
        return {"": encoder}
    layers = config.integer("num_decoder_layers", layers)
    tied = config.flag("tie_word_embeddings", True) or config.base
    scaled = config.flag("scale_decoder_outputs", tied)
    dim = config.integer("d_model", 512)
    logits: dict[str, Any] = {"tie_embedding": True} if tied else {"logits_bias": False}
    if tied != scaled:
        logits["logits_scale"] = dim**-0.5 if scaled else 1.0
    rows = [Tied("decoder.embed_tokens.weight", "shared.weight")]
    rows += [Tied("lm_head.weight", "shared.weight") if tied else Weight("to_logits", "lm_head")]
    decoder = _stack(config, "decoder", "(a c f)", layers, {"causal": True, **logits}, rows)
    pad = config.integer("pad_token_id", 0, least=0)
    arguments = generation(config, pad_token_id=pad, decoder_start_token_id=pad, eos_token_id=1)
    return {"encoder": encoder, "decoder": replace(decoder, arguments={**arguments, "tie_token_emb": True})}


def _stack(config: Config, side: str, layer: str, layers: int, own: Mapping[str, Any], rows: list[Row]) -> Component:
    heads = config.integer("num_heads", 8)
    projection = config.word("feed_forward_proj", "relu")
    gated = projection.startswith("gated-")
    activation = "gelu_new" if projection == "gated-gelu" else projection.removeprefix("gated-")
    activation = config.word("dense_act_fn", activation)
    config.only("is_gated_act", gated, f"feed_forward_proj={projection!r} says otherwise")
    name = f"{side}.block.{{i}}.layer."
    settings = {
        "dim": config.integer("d_model", 512),
        "heads": heads,
        "attn_dim_head": config.integer("d_kv", 64),
        "attn_qk_scale": 1.0,
        "use_rmsnorm": True,
        "norm_eps": config.number("layer_norm_epsilon", 1e-6),
        "rel_pos_bias": True,
        "rel_pos_scale": 1.0,
        "rel_pos_num_buckets": config.integer("relative_attention_num_buckets", 32),
        "rel_pos_max_distance": config.integer("relative_attention_max_distance", 128),
        "ff_inner": config.integer("d_ff", 2048),
        "ff_glu": gated,
        "ff_activation": config.activation_of("feed_forward_proj", activation),
        "ff_no_bias": True,
        "num_tokens": config.integer("vocab_size", 32128),
        "max_seq_len": 0,
        **own,
    }
    weights: list[Row] = [
        *rows,
        Weight(
            f"attn_layers.positions.t5_bias{heads}.buckets",
            f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias",
        ),
        Weight("a.norm", name + "0.layer_norm"),
        Weight("a.layer.to_qkv", tuple(f"{name}0.SelfAttention.{part}" for part in "qkv")),
        Weight("a.layer.output.to_out", name + "0.SelfAttention.o"),
    ]
    last = 1
    if "c" in layer:
        last = 2
        weights += [
            Weight("c.norm", name + "1.layer_norm"),
            Weight("c.layer.to_q", name + "1.EncDecAttention.q"),
            Weight("c.layer.to_kv", tuple(f"{name}1.EncDecAttention.{part}" for part in "kv")),
            Weight("c.layer.output.to_out", name + "1.EncDecAttention.o"),
        ]
    hidden = tuple(f"{name}{last}.DenseReluDense.{part}" for part in (("wi_1", "wi_0") if gated else ("wi",)))
    weights += [
        Weight("f.norm", f"{name}{last}.layer_norm"),
        Weight("f.layer.to_hidden", hidden),
        Weight("f.layer.to_out", f"{name}{last}.DenseReluDense.wo"),
        Weight("attn_layers.norm", f"{side}.final_layer_norm"),
    ]
    return Component(f"{layer}*{layers}", settings, weights, layers)


def _amended(config: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The configuration with what the weights say of the logits: those of releases from 5 on call all tied."""
    scaled = config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True))
    return {**config, "scale_decoder_outputs": scaled, "tie_word_embeddings": "lm_head.weight" not in names}


FAMILY = Family(
    model_types=("t5",),
    architectures=("T5ForConditionalGeneration", "T5EncoderModel"),
    base="T5Model",
    prefix="",
    source="arXiv:1910.10683",
    read=_read,
    amended=_amended,
    ignored=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),  # of no use, in old files
)
