"""SmolLM3 (Hugging Face, 2025): LLaMA, each fourth layer without rotary positions (Yang et al., arXiv:2501.18795)."""

from __future__ import annotations

from .config import Config
from .decoder import decoder_rows, decoder_sizes, gated_settings, layers_of, logits_settings, rotary_settings
from .family import Component, Family


def _read(config: Config) -> dict[str, Component]:
    layers = config.integer("num_hidden_layers", 36)
    sizes = decoder_sizes(config, kv_heads=4, length=32768)
    interval = config.integer("no_rope_layer_interval", 4)
    said = config.many("no_rope_layers", ())
    rotated = [bool(each) for each in said or [(i + 1) % interval for i in range(layers)]]  # 1: with rotary positions
    config.ignore("max_window_layers")  # nothing reads it
    window = config.optional("sliding_window", None)
    used = config.flag("use_sliding_window", False)
    pattern, shared = layers_of(config, window if used else None, [not each for each in rotated[:layers]], rotated)
    bias = config.flag("attention_bias", False)
    settings = {
        **sizes,
        **shared,
        **({} if any(rotated[:layers]) else {"use_abs_pos_emb": False}),
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        "use_rmsnorm": True,
        "norm_eps": config.number("rms_norm_eps", 1e-6),
        **rotary_settings(config, sizes["attn_dim_head"], theta=2e6),
        **gated_settings(config, config.flag("mlp_bias", False)),
        **logits_settings(config, tied=True),
    }
    return {"": Component(pattern, settings, decoder_rows(config, sizes, tied=True), layers)}


FAMILY = Family(
    model_types=("smollm3",),
    architectures=("SmolLM3ForCausalLM",),
    base="SmolLM3Model",
    prefix="model.",
    source="https://huggingface.co/blog/smollm3",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
