"""LLaMA 1 to 3 (Touvron et al., arXiv:2302.13971, arXiv:2307.09288; Grattafiori et al., arXiv:2407.21783).

RMSNorm, rotary positions with every scaling, SwiGLU, no biases unless the configuration says so.
"""

from __future__ import annotations

from .config import Config
from .decoder import decoder_rows, decoder_sizes, gated_settings, logits_settings, rotary_settings
from .family import Component, Family


def _read(config: Config) -> dict[str, Component]:
    layers, sizes = config.integer("num_hidden_layers"), decoder_sizes(config)
    bias = config.flag("attention_bias", False)
    config.only("rope_interleaved", False, "neighbouring features are rotated together")
    config.ignore("is_llama_config", "max_sequence_length", "transformers.js_config")  # nothing reads them
    settings = {
        **sizes,
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        "use_rmsnorm": True,
        "norm_eps": config.number("rms_norm_eps", 1e-6),
        **rotary_settings(config, sizes["attn_dim_head"]),
        **gated_settings(config, config.flag("mlp_bias", False)),
        **logits_settings(config),
    }
    return {"": Component(f"(a f)*{layers}", settings, decoder_rows(config, sizes), layers)}


FAMILY = Family(
    model_types=("llama",),
    architectures=("LlamaForCausalLM",),
    base="LlamaModel",
    prefix="model.",
    source="arXiv:2302.13971",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
