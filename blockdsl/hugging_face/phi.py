"""Phi-1, Phi-1.5 and Phi-2 (arXiv:2306.11644, arXiv:2309.05463): side by side after one norm, biases everywhere."""

from __future__ import annotations

from .config import Config
from .decoder import LAYER, attention_rows, decoder_sizes, logits_rows, logits_settings, rotary_settings
from .family import Component, Family, Row, Weight


def _read(config: Config) -> dict[str, Component]:
    layers, sizes = config.integer("num_hidden_layers", 24), decoder_sizes(config)
    eps, normed = config.number("layer_norm_eps", 1e-5), config.flag("qk_layernorm", False)
    settings = {
        **sizes,
        "attn_qkv_bias": True,
        "attn_out_bias": True,
        **({"attn_qk_layernorm": "head", "attn_qk_layernorm_eps": eps} if normed else {}),
        "norm_eps": eps,
        **rotary_settings(config, sizes["attn_dim_head"], share=0.5),
        "ff_inner": config.integer("intermediate_size", 8192),
        "ff_activation": config.activation("hidden_act", "gelu_new"),
        **logits_settings(config, bias=True),
    }
    weights: list[Row] = [
        Weight("token_emb", "model.embed_tokens"),
        Weight("a.norm", LAYER + "input_layernorm"),
        *attention_rows(sizes, out="dense"),
        *(Weight(f"a.layer.qk_norm.{part}", f"{LAYER}self_attn.{part}_layernorm") for part in ("qk" if normed else "")),
        Weight("f.layer.to_hidden", LAYER + "mlp.fc1"),
        Weight("f.layer.to_out", LAYER + "mlp.fc2"),
        Weight("attn_layers.norm", "model.final_layernorm"),
        *logits_rows(config),
    ]
    return {"": Component(f"(a & f(shared_norm))*{layers}", settings, weights, layers)}


FAMILY = Family(
    model_types=("phi",),
    architectures=("PhiForCausalLM",),
    base="PhiModel",
    prefix="model.",
    source="arXiv:2306.11644",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
