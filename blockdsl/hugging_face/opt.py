"""OPT (Zhang et al., arXiv:2205.01068): learned positions from the third row on, ReLU, biases everywhere."""

from __future__ import annotations

from .config import Config
from .decoder import logits_rows, logits_settings
from .family import Component, Family, Row, Weight

LAYER = "model.decoder.layers.{i}."


def _read(config: Config) -> dict[str, Component]:
    dim, layers = config.integer("hidden_size", 768), config.integer("num_hidden_layers", 12)
    heads, bias = config.integer("num_attention_heads", 12), config.flag("enable_bias", True)
    removed = config.flag("_remove_final_layer_norm", False)
    pre_norm, gain = config.flag("do_layer_norm_before", True), config.flag("layer_norm_elementwise_affine", True)
    final_norm = pre_norm and not removed
    config.only("word_embed_proj_dim", dim, "tokens are projected before positions are added")
    config.ignore("layerdrop", "init_std", "output_projection")
    settings = {
        "dim": dim,
        "heads": heads,
        "attn_dim_head": config.per_head(dim, heads, "hidden_size", "num_attention_heads"),
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        "causal": True,
        "pre_norm": pre_norm,
        "norm_gain": gain,
        "norm_bias": gain,
        **({"final_norm": False} if pre_norm and not final_norm else {}),
        "pos_offset": 2,
        "ff_inner": config.integer("ffn_dim", 3072),
        "ff_activation": config.activation("activation_function", "relu"),
        "ff_no_bias": not bias,
        "num_tokens": config.integer("vocab_size", 50272),
        "max_seq_len": config.integer("max_position_embeddings", 2048),
        **logits_settings(config, tied=True),
    }
    weights: list[Row] = [
        Weight("token_emb", "model.decoder.embed_tokens"),
        Weight("pos_emb.embedding", "model.decoder.embed_positions"),
        Weight("a.layer.to_qkv", tuple(f"{LAYER}self_attn.{part}_proj" for part in "qkv")),
        Weight("a.layer.output.to_out", LAYER + "self_attn.out_proj"),
        Weight("f.layer.to_hidden", LAYER + "fc1"),
        Weight("f.layer.to_out", LAYER + "fc2"),
        *logits_rows(config, tied=True, embedding="model.decoder.embed_tokens"),
    ]
    if gain:
        weights += [
            Weight("a.norm", LAYER + "self_attn_layer_norm"),
            Weight("f.norm", LAYER + "final_layer_norm"),
            *([Weight("attn_layers.norm", "model.decoder.final_layer_norm")] if final_norm else []),
        ]
    return {"": Component(f"(a f)*{layers}", settings, weights, layers)}


FAMILY = Family(
    model_types=("opt",),
    architectures=("OPTForCausalLM",),
    base="OPTModel",
    prefix="model.",
    source="arXiv:2205.01068",
    read=_read,
)
