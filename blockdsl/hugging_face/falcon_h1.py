"""Falcon-H1 (TII, arXiv:2507.22448): attention and Mamba-2 in parallel on one norm, a gated feedforward, and factors.

Factors of a linear layer's input and output are those of what follows: keys and queries scale the scores, values and
outputs the branch.
"""

from __future__ import annotations

from typing import Any

from .bamba import hybrid_rows
from .config import Config
from .decoder import decoder_sizes, gated_settings, logits_settings, rotary_settings
from .family import Component, Family, Weight
from .state_space import bamba_settings


def _read(config: Config) -> dict[str, Component]:
    layers, sizes = config.integer("num_hidden_layers"), decoder_sizes(config, kv_heads=8, length=8192)
    eps = config.number("rms_norm_eps", 1e-5)
    bias = config.flag("attention_bias", False)
    config.only("projectors_bias", config.flag("mamba_proj_bias", False), "one linear layer of Mamba-2 has a bias")
    config.only("layers_block_type", ["hybrid"] * layers, "a layer is of another kind")
    config.only("mamba_use_mlp", True, "layers have no feedforward")
    config.ignore("layer_types", "mlp_expansion_factor")  # intermediate_size says it
    entering, of_attention = config.number("attention_in_multiplier", 1.0), config.number("key_multiplier", 1.0)
    gate, down = config.numbers("mlp_multipliers", (1.0, 1.0), 2)
    settings = {
        **sizes,
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        "attn_qk_scale": sizes["attn_dim_head"] ** -0.5 * of_attention * entering**2,
        **_state_space(config, eps),
        "use_rmsnorm": True,
        "norm_eps": eps,
        **rotary_settings(config, sizes["attn_dim_head"]),
        **gated_settings(config, config.flag("mlp_bias", False)),
        "ff_gate_scale": gate,
        "embed_scale": config.number("embedding_multiplier", 1.0),
        **logits_settings(config),
        **({} if config.base else {"logits_scale": config.number("lm_head_multiplier", 1.0)}),
    }
    if bias and entering != 1:
        raise config.lacks(f"attention_in_multiplier={entering}", "attention has biases, which it does not scale")
    m = _scaled("m", [], config.number("ssm_out_multiplier", 1.0))
    a = _scaled("a", ["shared_norm"], entering * config.number("attention_out_multiplier", 1.0))
    # one norm, that of the first branch
    rows = [row for row in hybrid_rows(config, sizes) if not (isinstance(row, Weight) and row.ours == "a.norm")]
    return {"": Component(f"(({m} & {a}) {_scaled('f', [], down)})*{layers}", settings, rows, layers)}


def _scaled(kind: str, options: list[str], scale: float) -> str:
    options = options + ([] if scale == 1 else [f"branch_scale={scale!r}"])
    return f"{kind}({', '.join(options)})" if options else kind


def _state_space(config: Config, eps: float) -> dict[str, Any]:
    scale = config.number("ssm_in_multiplier", 1.0)
    scales = tuple(scale * each for each in config.numbers("ssm_multipliers", (1.0,) * 5, 5))
    settings = bamba_settings(config, eps=eps, inner=config.optional("mamba_d_ssm", 1024))
    if settings["ssm_bias"] and scale != 1:
        raise config.lacks(f"ssm_in_multiplier={scale}", "Mamba-2 has biases, which it does not scale")
    gate_first = not config.flag("mamba_norm_before_gate", True)
    has_norm = config.flag("mamba_rms_norm", False)
    return {
        **settings,
        "ssm_in_scales": None if {*scales} == {1.0} else scales,
        "ssm_gated_norm": settings["ssm_gated_norm"] if has_norm else None,
        "ssm_gated_norm_eps": eps if has_norm else 1e-5,
        "ssm_gate_first": gate_first or not has_norm,
    }


FAMILY = Family(
    model_types=("falcon_h1",),
    architectures=("FalconH1ForCausalLM",),
    base="FalconH1Model",
    prefix="model.",
    source="arXiv:2507.22448",
    read=_read,
    ignored=("rotary_emb.inv_freq", "mamba.mup_vector"),
)
