"""LLaMA 1 and 2 (Touvron et al., arXiv:2302.13971, arXiv:2307.09288): RMSNorm, rotary positions, SwiGLU, no biases."""

from __future__ import annotations

from .config import Config
from .family import Component, Family, Row, Tied, Weight

LAYER = "model.layers.{i}."


def _read(config: Config) -> dict[str, Component]:
    dim, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    heads = config.integer("num_attention_heads")
    kv_heads = config.integer("num_key_value_heads", heads)
    dim_head = config.integer("head_dim", dim // heads)
    tied = config.flag("tie_word_embeddings", False)
    config.only("attention_bias", False, "linear layers of attention have biases")
    config.only("mlp_bias", False, "linear layers of the feedforward have biases")
    config.only("hidden_act", "silu", "another activation")
    config.only("rope_scaling", None, "rotary positions are scaled")
    rope = config.nested("rope_parameters")
    rope.only("rope_type", "default", "rotary positions are scaled")
    if rope.number("rope_theta", config.number("rope_theta", 10000.0)) != 10000.0:
        raise config.lacks("rope_theta", "rotary positions have another base")
    settings = {
        "dim": dim,
        "heads": heads,
        "attn_dim_head": dim_head,
        "attn_kv_heads": None if kv_heads == heads else kv_heads,
        "causal": True,
        "use_rmsnorm": True,
        "norm_eps": config.number("rms_norm_eps", 1e-6),
        "rotary_pos_emb": True,
        "rotary_emb_dim": dim_head,
        "ff_mult": config.integer("intermediate_size") / dim,
        "ff_glu": True,
        "ff_swish": True,
        "ff_no_bias": True,
        "num_tokens": config.integer("vocab_size"),
        "max_seq_len": config.integer("max_position_embeddings", 2048),
        **({"return_only_embed": True} if config.base else _logits(tied)),
    }
    sizes = heads * dim_head, kv_heads * dim_head, kv_heads * dim_head
    weights: list[Row] = [
        Weight("token_emb", "model.embed_tokens"),
        Weight("a.norm", LAYER + "input_layernorm"),
        Weight("a.layer.to_qkv", tuple(f"{LAYER}self_attn.{part}_proj" for part in "qkv"), sizes=sizes),
        Weight("a.layer.output.to_out", LAYER + "self_attn.o_proj"),
        Weight("f.norm", LAYER + "post_attention_layernorm"),
        Weight("f.layer.to_hidden", (LAYER + "mlp.up_proj", LAYER + "mlp.gate_proj")),
        Weight("f.layer.to_out", LAYER + "mlp.down_proj"),
        Weight("attn_layers.norm", "model.norm"),
        Tied("lm_head.weight", "model.embed_tokens.weight") if tied else Weight("to_logits", "lm_head"),
    ]
    return {"": Component(f"(a f)*{layers}", settings, weights, layers)}


def _logits(tied: bool) -> dict[str, object]:
    return {"tie_embedding": True, "logits_scale": 1.0} if tied else {"logits_bias": False}


FAMILY = Family(
    model_types=("llama",),
    architectures=("LlamaForCausalLM",),
    base="LlamaModel",
    prefix="model.",
    source="arXiv:2302.13971",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
