"""Mamba (arXiv:2312.00752): selective scans alone. What Falcon-Mamba and Jamba share with it."""

from __future__ import annotations

from typing import Any

from .config import Config
from .decoder import logits_rows, logits_settings
from .family import Component, Family, Row, Weight

LONGEST = 2**20
"""Tokens of the longest text, which nothing in the model limits."""


def scan_rows(mixer: str) -> list[Row]:
    """Of the blocks, whose names start with `mixer`."""
    parts = {"to_in": "in_proj", "conv": "conv1d", "to_scan": "x_proj", "to_dt": "dt_proj", "to_out": "out_proj"}
    return [
        *(Weight(f"mamba.layer.{ours}", mixer + theirs) for ours, theirs in parts.items()),
        *(Weight(f"mamba.layer.{name}", mixer + name) for name in ("A_log", "D")),
    ]


def read_mamba(config: Config, rmsnorm: dict[str, Any]) -> dict[str, Component]:
    """A model of Mamba's blocks alone, and the settings of the norms within them."""
    layers, dim = config.integer("num_hidden_layers", 32), config.integer("hidden_size", 768)
    inner = config.integer("intermediate_size", int(config.number("expand", 2) * dim))
    config.ignore("expand")  # where both are said, as in Falcon-Mamba, theirs has so many features too
    rank = config.get("time_step_rank", "auto")
    config.only("hidden_act", "silu", "the convolution and the gate have another activation")
    config.ignore("residual_in_fp32", "rescale_prenorm_residual", "use_mambapy", "use_falcon_mambapy")
    config.ignore("use_associative_scan", "time_step_scale", "time_step_min", "time_step_max", "time_step_floor")
    config.ignore("time_step_init_scheme", "d_inner", "d_model", "n_layer", "ssm_cfg", "rms_norm", "fused_add_norm")
    config.ignore("conv_dimension", "pad_vocab_size_multiple", "layer_norm_eps")
    config.only("layer_types", ["linear_attention"] * layers, "a layer has no scan")
    settings = {
        "dim": dim,
        "causal": True,
        "use_abs_pos_emb": False,
        "num_tokens": config.integer("vocab_size", 50280),
        "max_seq_len": LONGEST,
        "mamba_state": config.integer("state_size", 16),
        "mamba_kernel": config.integer("conv_kernel", 4),
        "mamba_conv_bias": config.flag("use_conv_bias", True),
        "mamba_bias": config.flag("use_bias", False),
        **({} if inner == 2 * dim else {"mamba_inner": inner}),
        **({} if rank in ("auto", -(-dim // 16)) else {"mamba_dt_rank": config.integer("time_step_rank")}),
        **rmsnorm,
        "use_rmsnorm": True,
        "norm_eps": config.number("layer_norm_epsilon", 1e-5),
        **logits_settings(config, tied=True),
    }
    rows = [
        Weight("token_emb", "backbone.embeddings"),
        Weight("mamba.norm", "backbone.layers.{i}.norm"),
        *scan_rows("backbone.layers.{i}.mixer."),
        Weight("attn_layers.norm", "backbone.norm_f"),
        *logits_rows(config, tied=True, embedding="backbone.embeddings"),
    ]
    return {"": Component(f"mamba*{layers}", settings, rows, layers)}


FAMILY = Family(
    model_types=("mamba",),
    architectures=("MambaForCausalLM",),
    base="MambaModel",
    prefix="backbone.",
    source="arXiv:2312.00752",
    read=lambda config: read_mamba(config, {}),
)
