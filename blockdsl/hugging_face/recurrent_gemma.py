"""RecurrentGemma (arXiv:2404.07839): Griffin's recurrent blocks, and a window of attention in each third layer."""

from __future__ import annotations

from itertools import cycle, islice
from math import frexp, ldexp, sqrt

from .config import Config
from .decoder import LAYER, decoder_sizes, logits_rows, logits_settings, rotary_settings
from .family import Component, Family, Row, Weight
from .layers import repeated

_MIXER = {"recurrent": "rglru", "attention": "a"}


def _read(config: Config) -> dict[str, Component]:
    layers, sizes = config.integer("num_hidden_layers", 26), decoder_sizes(config, length=8192)
    dim = sizes["dim"]
    config.ignore("w_init_variance_scale", "final_w_init_variance_scale")
    config.only("embeddings_scale_by_sqrt_dim", True, "the embedding is not scaled")
    bias = config.flag("attention_bias", False)
    settings = {
        **sizes,
        "attn_qkv_bias": bias,
        "attn_out_bias": True,
        "attn_max_attend_past": config.integer("attention_window_size", 2048) - 1,
        "rglru_width": config.optional("lru_width", None),
        "rglru_heads": sizes["heads"],
        "rglru_kernel": config.integer("conv1d_width", 4),
        "use_rmsnorm": True,
        "norm_eps": config.number("rms_norm_eps", 1e-6),
        "norm_unit_offset": True,
        **rotary_settings(config, sizes["attn_dim_head"], share=0.5),
        "ff_inner": config.integer("intermediate_size", 7680) // 2,
        "ff_glu": True,
        "ff_activation": _activation(config),
        "embed_scale": _bfloat16(sqrt(dim)),
        **logits_settings(config, tied=True),
    }
    if settings["rglru_width"] == dim:
        del settings["rglru_width"]
    if not config.base:
        settings["logits_softcap"] = config.number("logits_soft_cap", 30.0)
    blocks = [f"{_MIXER[kind]} f" for kind in islice(cycle(_block_types(config)), layers)]
    return {"": Component(repeated(blocks), settings, _rows(config, sizes), blocks)}


def _block_types(config: Config) -> list[str]:
    types = list(config.many("block_types", ("recurrent", "recurrent", "attention")))
    if not types or not {*types} <= {*_MIXER}:
        raise config.lacks(f"block_types={types!r}", "it is not one of recurrent and attention for each layer")
    return types


def _activation(config: Config) -> str:
    """Of the feedforwards, and of the gates of recurrent blocks, which have no other."""
    config.only("hidden_activation", "gelu_pytorch_tanh", "recurrent blocks are gated by another activation")
    return "gelu_tanh"


def _bfloat16(number: float) -> float:
    """The nearest number that has 8 bits, as theirs keeps the factor of the embedding."""
    mantissa, exponent = frexp(number)
    return ldexp(round(mantissa * 2**8), exponent - 8)


def _rows(config: Config, sizes: dict[str, int]) -> list[Row]:
    mixer = LAYER + "temporal_block."
    query = sizes["heads"] * sizes["attn_dim_head"]
    keys = (sizes["attn_kv_heads"] or sizes["heads"]) * sizes["attn_dim_head"]
    gates = [
        Weight(f"rglru.layer.{ours}.{part}", f"{mixer}rg_lru.{theirs}_gate_{part}")
        for ours, theirs in (("input_gate", "input"), ("recurrence_gate", "recurrent"))
        for part in ("weight", "bias")
    ]
    return [
        Weight("token_emb", "model.embed_tokens"),
        *(Weight(f"{kind}.norm", LAYER + "temporal_pre_norm") for kind in _MIXER.values()),
        Weight("a.layer.to_qkv", tuple(f"{mixer}{part}_proj" for part in "qkv"), sizes=(query, keys, keys)),
        Weight("a.layer.output.to_out", mixer + "o_proj"),
        Weight("rglru.layer.to_in", (mixer + "linear_x", mixer + "linear_y")),
        Weight("rglru.layer.conv", mixer + "conv_1d"),
        *gates,
        Weight("rglru.layer.decay", mixer + "rg_lru.recurrent_param"),
        Weight("rglru.layer.to_out", mixer + "linear_out"),
        Weight("f.norm", LAYER + "channel_pre_norm"),
        Weight("f.layer.to_hidden", (LAYER + "mlp_block.up_proj", LAYER + "mlp_block.gate_proj")),
        Weight("f.layer.to_out", LAYER + "mlp_block.down_proj"),
        Weight("attn_layers.norm", "model.final_norm"),
        *logits_rows(config, tied=True),
    ]


FAMILY = Family(
    model_types=("recurrent_gemma",),
    architectures=("RecurrentGemmaForCausalLM",),
    base="RecurrentGemmaModel",
    prefix="model.",
    source="arXiv:2404.07839",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
