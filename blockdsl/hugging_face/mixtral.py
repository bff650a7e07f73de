"""Mixtral 8x7B and 8x22B (Jiang et al., arXiv:2401.04088): Mistral with experts in place of each feedforward."""

from __future__ import annotations

from .config import Config
from .decoder import decoder_rows, decoder_sizes, layers_of, logits_settings, rotary_settings
from .experts import expert_rows, gated_experts
from .family import Component, Family, Weight


def _read(config: Config) -> dict[str, Component]:
    layers = config.integer("num_hidden_layers", 32)
    sizes = decoder_sizes(config, kv_heads=8, length=4096 * 32)
    config.only("router_jitter_noise", 0.0, "the router's input is scaled at random in training")
    pattern, window = layers_of(config, config.optional("sliding_window", None), [True] * layers, block="a e")
    settings = {
        **sizes,
        **window,
        "use_rmsnorm": True,
        "norm_eps": config.number("rms_norm_eps", 1e-5),
        **rotary_settings(config, sizes["attn_dim_head"], theta=1e6),
        **gated_experts(config, config.integer("intermediate_size", 14336), (8, 2)),
        **logits_settings(config),
    }
    rows = [
        *decoder_rows(config, sizes),
        Weight("e.norm", "model.layers.{i}.post_attention_layernorm"),
        *expert_rows(settings["moe_experts"], "block_sparse_moe.", ("w1", "w3", "w2")),
    ]
    return {"": Component(pattern, settings, rows, ["a e"] * layers)}


FAMILY = Family(
    model_types=("mixtral",),
    architectures=("MixtralForCausalLM",),
    base="MixtralModel",
    prefix="model.",
    source="arXiv:2401.04088",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
