"""Phi-3 and Phi-4-mini (Abdin et al., arXiv:2404.14219): joined weights, LongRoPE, a share of each head rotated."""

from __future__ import annotations

from .config import Config
from .decoder import LAYER, decoder_sizes, gated_settings, layers_of, logits_rows, logits_settings, rotary_settings
from .family import Component, Family, Row, Weight


def _read(config: Config) -> dict[str, Component]:
    layers = config.integer("num_hidden_layers", 32)
    sizes = decoder_sizes(config, length=4096)
    pattern, window = layers_of(config, config.optional("sliding_window", None), [True] * layers)
    config.ignore("original_max_position_embeddings")  # of LongRoPE alone
    config.ignore("interpolate_factor", "full_attn_mod")  # nothing reads them
    for name in ("attention_bias", "mlp_bias", "lm_head_bias"):
        config.only(name, False, "there are biases")
    settings = {
        **sizes,
        **window,
        "use_rmsnorm": True,
        "norm_eps": config.number("rms_norm_eps", 1e-5),
        **rotary_settings(config, sizes["attn_dim_head"], share=1.0),
        **gated_settings(config),
        "ff_gate_first": True,
        **logits_settings(config),
    }
    weights: list[Row] = [
        Weight("token_emb", "model.embed_tokens"),
        Weight("a.norm", LAYER + "input_layernorm"),
        Weight("a.layer.to_qkv", LAYER + "self_attn.qkv_proj"),
        Weight("a.layer.output.to_out", LAYER + "self_attn.o_proj"),
        Weight("f.norm", LAYER + "post_attention_layernorm"),
        Weight("f.layer.to_hidden", LAYER + "mlp.gate_up_proj"),
        Weight("f.layer.to_out", LAYER + "mlp.down_proj"),
        Weight("attn_layers.norm", "model.norm"),
        *logits_rows(config),
    ]
    return {"": Component(pattern, settings, weights, layers)}


FAMILY = Family(
    model_types=("phi3",),
    architectures=("Phi3ForCausalLM",),
    base="Phi3Model",
    prefix="model.",
    source="arXiv:2404.14219",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
