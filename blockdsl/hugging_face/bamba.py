"""Bamba (IBM, Princeton and UIUC, 2024): Mamba-2, in some layers attention, and gated feedforwards."""

from __future__ import annotations

from .config import Config
from .decoder import LAYER, attention_rows, decoder_sizes, gated_settings, logits_rows, logits_settings, rotary_settings
from .family import Component, Family, Row, Weight
from .layers import layer_types, listed, named, repeated
from .state_space import bamba_settings, state_space_rows

_BLOCKS = {"linear_attention": "m f", "full_attention": "a f"}


def _read(config: Config) -> dict[str, Component]:
    layers, sizes = config.integer("num_hidden_layers"), decoder_sizes(config, kv_heads=8)
    eps = config.number("rms_norm_eps", 1e-5)
    bias = config.flag("attention_bias", False)
    attended = listed(config, layers, "attn_layer_indices")
    types = layer_types(config, named("full_attention", "linear_attention", attended), _BLOCKS)
    settings = {
        **sizes,
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        **bamba_settings(config, eps=eps),
        "use_rmsnorm": True,
        "norm_eps": eps,
        **(
            rotary_settings(config, sizes["attn_dim_head"], share=0.5)
            if "full_attention" in types
            else {"use_abs_pos_emb": False}
        ),
        **gated_settings(config, config.flag("mlp_bias", False)),
        **logits_settings(config),
    }
    half = sizes["attn_dim_head"] // 2
    config.only("attn_rotary_emb", half, f"so many features of a head are rotated, and not the {half} of Bamba")
    config.ignore("rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor")
    blocks = [_BLOCKS[each] for each in types]
    return {"": Component(repeated(blocks), settings, hybrid_rows(config, sizes), blocks)}


def hybrid_rows(config: Config, sizes: dict[str, object]) -> list[Row]:
    """The weights, by the names that Falcon-H1 has too."""
    return [
        Weight("token_emb", "model.embed_tokens"),
        Weight("m.norm", LAYER + "input_layernorm"),
        *state_space_rows(LAYER + "mamba"),
        Weight("a.norm", LAYER + "input_layernorm"),
        *attention_rows(sizes),
        Weight("f.norm", LAYER + "pre_ff_layernorm"),
        Weight("f.layer.to_hidden", (LAYER + "feed_forward.up_proj", LAYER + "feed_forward.gate_proj")),
        Weight("f.layer.to_out", LAYER + "feed_forward.down_proj"),
        Weight("attn_layers.norm", "model.final_layernorm"),
        *logits_rows(config),
    ]


FAMILY = Family(
    model_types=("bamba",),
    architectures=("BambaForCausalLM",),
    base="BambaModel",
    prefix="model.",
    source="IBM, 2024",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
