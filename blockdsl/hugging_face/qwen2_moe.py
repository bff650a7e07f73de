"""Qwen1.5-MoE and Qwen2-MoE (Yang et al., arXiv:2407.10671): experts, and a gated one that every token reads."""

from __future__ import annotations

from .config import Config
from .decoder import LAYER, decoder_rows, decoder_sizes, gated_settings, logits_settings, rotary_settings
from .experts import expert_rows, gated_experts, sparse_layers
from .family import Component, Family, Weight
from .layers import repeated


def _read(config: Config) -> dict[str, Component]:
    layers = config.integer("num_hidden_layers", 24)
    sizes = decoder_sizes(config, kv_heads=16, length=32768)
    sparse = sparse_layers(config, layers)
    kinds = ["a e" if each else "a f" for each in sparse]
    config.only("use_sliding_window", False, "some layers have a window")
    config.only("layer_types", ["full_attention"] * layers, "some layers have a window")
    config.ignore("sliding_window", "max_window_layers")  # of windows
    experts = gated_experts(config, config.integer("moe_intermediate_size", 1408), (60, 4))
    experts |= {
        "moe_renormalise": config.flag("norm_topk_prob", False),
        "moe_shared_inner": config.integer("shared_expert_intermediate_size", 5632),
        "moe_shared_gate": True,
    }
    settings = {
        **sizes,
        "attn_qkv_bias": config.flag("qkv_bias", True),
        "use_rmsnorm": True,
        "norm_eps": config.number("rms_norm_eps", 1e-6),
        **rotary_settings(config, sizes["attn_dim_head"]),
        **(experts if any(sparse) else {}),
        **({} if all(sparse) else gated_settings(config)),
        **logits_settings(config),
    }
    config.ignore("intermediate_size")  # of layers without experts
    shared = LAYER + "mlp.shared_expert"
    rows = [
        *decoder_rows(config, sizes),
        Weight("e.norm", LAYER + "post_attention_layernorm"),
        *expert_rows(experts["moe_experts"]),
        Weight("e.layer.shared.to_hidden", (f"{shared}.up_proj", f"{shared}.gate_proj")),
        Weight("e.layer.shared.to_out", f"{shared}.down_proj"),
        Weight("e.layer.shared_gate", f"{shared}_gate"),
    ]
    return {"": Component(repeated(kinds), settings, rows, kinds)}


FAMILY = Family(
    model_types=("qwen2_moe",),
    architectures=("Qwen2MoeForCausalLM",),
    base="Qwen2MoeModel",
    prefix="model.",
    source="arXiv:2407.10671",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
