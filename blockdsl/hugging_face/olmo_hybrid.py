"""OLMo Hybrid (Ai2, 2026): three gated delta nets for each attention, whose norms are after the branch as in OLMo 2."""

from __future__ import annotations

from .config import Config
from .decoder import (
    LAYER,
    attention_rows,
    decoder_sizes,
    gated_rows,
    gated_settings,
    logits_rows,
    logits_settings,
    rotary_settings,
)
from .family import Component, Family, Row, Weight
from .gated_delta import MIXER, delta_rows, delta_settings, key_and_value_features
from .layers import each_last, layer_types, named, repeated

_LAYERS = {"linear_attention": "gdn f", "full_attention": "a(output_norm) f(output_norm)"}


def _read(config: Config) -> dict[str, Component]:
    layers, sizes = config.integer("num_hidden_layers", 32), decoder_sizes(config, length=65536)
    last = list(each_last(config, layers, "full_attention_interval", 4))
    usual = named("full_attention", "linear_attention", last if any(last) else [*last[:-1], True])
    types = layer_types(config, usual, _LAYERS)
    heads = sizes["heads"]
    usual_size = int(0.75 * sizes["dim"] / config.integer("linear_num_key_heads", heads))
    size = config.integer("linear_key_head_dim", usual_size)
    delta = delta_settings(config, heads, heads, size, 2 * size)
    for name in ("linear_a_log_min", "linear_a_log_max", "linear_dt_min", "linear_dt_max", "linear_dt_init_floor"):
        config.ignore(name)
    config.only("hidden_act", "silu", "convolutions have the activation of the feedforwards")
    bias, eps = config.flag("attention_bias", False), config.number("rms_norm_eps", 1e-6)
    settings = {
        **sizes,
        **delta,
        "gdn_neg_eigval": config.flag("linear_allow_neg_eigval", True),
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        "attn_qk_rmsnorm": "all",
        "attn_qk_rmsnorm_eps": eps,
        "use_rmsnorm": True,
        "norm_eps": eps,
        **(rotary_settings(config, sizes["attn_dim_head"]) if _rotates(config) else {"use_abs_pos_emb": False}),
        **gated_settings(config),
        **logits_settings(config),
    }
    keys, values = key_and_value_features(settings)
    sizes_of_gated = keys, keys, values, values
    rows: list[Row] = [
        Weight("token_emb", "model.embed_tokens"),
        Weight("gdn.norm", LAYER + "attention_layer_norm"),
        *delta_rows("o_proj", "o_norm"),
        Weight("gdn.layer.to_qkvg", tuple(f"{MIXER}{part}_proj" for part in "qkvg"), sizes=sizes_of_gated),
        Weight("gdn.layer.to_beta_decay", (MIXER + "b_proj", MIXER + "a_proj")),
        Weight("gdn.layer.conv", tuple(f"{MIXER}{part}_conv1d" for part in "qkv"), sizes=(keys, keys, values)),
        *attention_rows(sizes),
        *(Weight(f"a.layer.qk_norm.{part}", f"{LAYER}self_attn.{part}_norm") for part in "qk"),
        Weight("a.sandwich_norm", LAYER + "feedforward_layer_norm"),  # what transformers writes; see `other_names`
        Weight("f.norm", LAYER + "feedforward_layer_norm"),
        *gated_rows(),
        Weight("f.sandwich_norm", LAYER + "post_feedforward_layernorm"),
        Weight("attn_layers.norm", "model.norm"),
        *logits_rows(config),
    ]
    blocks = [_LAYERS[kind] for kind in types]
    return {"": Component(repeated(blocks), settings, rows, blocks)}


def _rotates(config: Config) -> bool:
    """Whether there are rotary positions: released models have none, and say it by null."""
    rope = config.values.get("rope_parameters", {"rope_theta": 10000.0})
    config.ignore("rope_parameters")
    return rope is not None and rope.get("rope_theta", 10000.0) is not None


FAMILY = Family(
    model_types=("olmo_hybrid",),
    architectures=("OlmoHybridForCausalLM",),
    base="OlmoHybridModel",
    prefix="model.",
    source="https://huggingface.co/allenai/Olmo-Hybrid-7B",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
    other_names=(("feedforward_layer_norm", "post_attention_layernorm"), ("attention_layer_norm", "input_layernorm")),
)
