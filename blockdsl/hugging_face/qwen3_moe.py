"""Qwen3-MoE (Yang et al., arXiv:2505.09388): Qwen 3 with many small experts."""

from __future__ import annotations

from .config import Config
from .decoder import decoder_rows, decoder_sizes, gated_settings, logits_settings, rotary_settings
from .experts import expert_rows, gated_experts, sparse_layers
from .family import Component, Family, Weight
from .layers import repeated


def _read(config: Config) -> dict[str, Component]:
    layers = config.integer("num_hidden_layers", 24)
    sizes = decoder_sizes(config, kv_heads=4, length=32768)
    bias, eps = config.flag("attention_bias", False), config.number("rms_norm_eps", 1e-6)
    sparse = sparse_layers(config, layers)
    kinds = ["a e" if each else "a f" for each in sparse]
    window = config.optional("sliding_window", 4096) if config.flag("use_sliding_window", False) else None
    config.ignore("max_window_layers")  # every layer has the window, if any has
    experts = gated_experts(config, config.integer("moe_intermediate_size", 768), (128, 8))
    experts["moe_renormalise"] = config.flag("norm_topk_prob", False)
    settings = {
        **sizes,
        "attn_max_attend_past": None if window is None else window - 1,
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        "attn_qk_rmsnorm": "head",
        "attn_qk_rmsnorm_eps": eps,
        "use_rmsnorm": True,
        "norm_eps": eps,
        **rotary_settings(config, sizes["attn_dim_head"]),
        **(experts if any(sparse) else {}),
        **({} if all(sparse) else gated_settings(config)),
        **logits_settings(config),
    }
    config.ignore("intermediate_size")  # of layers without experts
    rows = [
        *decoder_rows(config, sizes),
        *(Weight(f"a.layer.qk_norm.{part}", f"model.layers.{{i}}.self_attn.{part}_norm") for part in "qk"),
        Weight("e.norm", "model.layers.{i}.post_attention_layernorm"),
        *expert_rows(experts["moe_experts"]),
    ]
    return {"": Component(repeated(kinds), settings, rows, kinds)}


FAMILY = Family(
    model_types=("qwen3_moe",),
    architectures=("Qwen3MoeForCausalLM",),
    base="Qwen3MoeModel",
    prefix="model.",
    source="arXiv:2505.09388",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
