"""Mamba-2 (arXiv:2405.21060): state space blocks alone."""

from __future__ import annotations

from .config import Config
from .decoder import logits_rows, logits_settings
from .family import Component, Family, Weight
from .mamba import LONGEST
from .state_space import state_space_rows, state_space_settings


def _read(config: Config) -> dict[str, Component]:
    dim, layers = config.integer("hidden_size", 4096), config.integer("num_hidden_layers", 64)
    eps = config.number("layer_norm_epsilon", 1e-5)
    config.only("hidden_act", "silu", "the state space has another activation")
    config.ignore("time_step_min")
    settings = {
        "dim": dim,
        "causal": True,
        "num_tokens": config.integer("vocab_size"),
        "max_seq_len": LONGEST,
        **state_space_settings(
            config,
            eps=eps,
            inner=int(config.number("expand", 2) * dim),
            state=config.integer("state_size", 128),
            heads=config.integer("num_heads", 128),
            dim_head=config.integer("head_dim", 64),
            groups=config.integer("n_groups", 8),
            kernel=config.integer("conv_kernel", 4),
        ),
        "ssm_conv_bias": config.flag("use_conv_bias", True),
        "ssm_bias": config.flag("use_bias", False),
        "use_abs_pos_emb": False,
        "use_rmsnorm": True,
        "norm_eps": eps,
        **logits_settings(config),
    }
    layer = "backbone.layers.{i}."
    rows = [
        Weight("token_emb", "backbone.embeddings"),
        Weight("m.norm", layer + "norm"),
        *state_space_rows(layer + "mixer"),
        Weight("attn_layers.norm", "backbone.norm_f"),
        *logits_rows(config, embedding="backbone.embeddings"),
    ]
    return {"": Component(f"m*{layers}", settings, rows, layers)}


FAMILY = Family(
    model_types=("mamba2",),
    architectures=("Mamba2ForCausalLM",),
    base="Mamba2Model",
    prefix="backbone.",
    source="arXiv:2405.21060",
    read=_read,
)
