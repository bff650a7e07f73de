"""LFM2 (Liquid AI, arXiv:2511.23404): short convolutions in place of attention in most layers."""

from __future__ import annotations

from .config import Config
from .decoder import LAYER, attention_rows, decoder_sizes, logits_rows, logits_settings, rotary_settings
from .family import Component, Family, Weight
from .layers import layer_types, listed, named, repeated

_MIXER = {"conv": "conv", "full_attention": "a"}


def _read(config: Config) -> dict[str, Component]:
    layers, sizes = config.integer("num_hidden_layers", 32), decoder_sizes(config, kv_heads=8, length=128_000)
    attends = listed(config, layers, "full_attn_idxs", range(layers))
    blocks = [f"{_MIXER[kind]} f" for kind in layer_types(config, named("full_attention", "conv", attends), _MIXER)]
    tied = config.flag("tie_embedding", config.flag("tie_word_embeddings", True))
    config.ignore("theta", "block_dim", "block_norm_eps", "block_mlp_init_scale", "block_out_init_scale")
    config.ignore("block_use_swiglu", "block_use_xavier_init", "conv_dim", "conv_dim_out", "conv_use_xavier_init")
    config.ignore("num_heads", "use_pos_enc")  # of Liquid's own code: not read by theirs either
    eps, bias = config.number("norm_eps", 1e-5), config.flag("conv_bias", False)
    settings = {
        **sizes,
        "attn_qk_rmsnorm": "head",
        "attn_qk_rmsnorm_eps": eps,
        "conv_kernel": config.integer("conv_L_cache", 3),
        "conv_bias": bias,
        "use_rmsnorm": True,
        "norm_eps": eps,
        **rotary_settings(config, sizes["attn_dim_head"], theta=1e6),
        "ff_inner": _hidden_features(config),
        "ff_glu": True,
        "ff_activation": "silu",
        "ff_no_bias": True,
        **logits_settings(config, tied),
    }
    rows = [
        Weight("token_emb", "model.embed_tokens"),
        *(Weight(f"{kind}.norm", LAYER + "operator_norm") for kind in ("a", "conv")),
        *attention_rows(sizes, out="out_proj"),
        *(Weight(f"a.layer.qk_norm.{part}", f"{LAYER}self_attn.{part}_layernorm") for part in "qk"),
        Weight("conv.layer.to_in", LAYER + "conv.in_proj"),
        Weight("conv.layer.conv", LAYER + "conv.conv"),
        Weight("conv.layer.to_out", LAYER + "conv.out_proj"),
        Weight("f.norm", LAYER + "ffn_norm"),
        Weight("f.layer.to_hidden", (LAYER + "feed_forward.w3", LAYER + "feed_forward.w1")),
        Weight("f.layer.to_out", LAYER + "feed_forward.w2"),
        Weight("attn_layers.norm", "model.embedding_norm"),
        *logits_rows(config, tied),
    ]
    return {"": Component(repeated(blocks), settings, rows, blocks)}


def _hidden_features(config: Config) -> int:
    """Two thirds of what is said, rounded up, unless it is said that they are adjusted already."""
    inner = config.integer("block_ff_dim", config.integer("intermediate_size", 12288))
    scale, multiple = config.number("block_ffn_dim_multiplier", 1.0), config.integer("block_multiple_of", 256)
    if config.flag("block_auto_adjust_ff_dim", True):
        inner = -(-int(scale * int(2 * inner / 3)) // multiple) * multiple
    return inner


FAMILY = Family(
    model_types=("lfm2",),
    architectures=("Lfm2ForCausalLM",),
    base="Lfm2Model",
    prefix="model.",
    source="arXiv:2511.23404",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
