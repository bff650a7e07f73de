"""ModernBERT (Warner et al., arXiv:2412.13663): rotary positions, gated feedforwards, windows on both sides in two of
three layers, and no norm before the first attention."""

from __future__ import annotations

from .config import Config
from .family import Component, Family, Row, Tied, Weight
from .layers import layer_types, named, repeated

LAYER = "model.layers.{i}."
KINDS = {"full_attention": (1.6e5, "global_rope_theta"), "sliding_attention": (1e4, "local_rope_theta")}


def _read(config: Config) -> dict[str, Component]:
    dim, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    dim_head = config.per_head(dim, heads, "hidden_size", "num_attention_heads")
    layers, bias = config.integer("num_hidden_layers"), config.flag("attention_bias", False)
    config.only("tie_word_embeddings", True, "logits of their own")
    config.ignore("initializer_cutoff_factor", "deterministic_flash_attn", "sparse_prediction")
    config.ignore("sparse_pred_ignore_index", "classifier_pooling", "reference_compile", "repad_logits_with_grad")
    config.ignore("layer_norm_eps", "position_embedding_type")  # in published files, whose norms read norm_eps
    ropes = config.nested("rope_parameters")
    near, far = _theta(config, ropes, "sliding_attention"), _theta(config, ropes, "full_attention")
    settings = {
        "dim": dim,
        "heads": heads,
        "attn_dim_head": dim_head,
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        "norm_eps": config.number("norm_eps", 1e-5),
        "norm_bias": config.flag("norm_bias", False),
        "rotary_pos_emb": True,
        "rotary_emb_dim": dim_head,
        "rotary_theta": near,
        "ff_inner": config.integer("intermediate_size"),
        "ff_glu": True,
        "ff_gate_first": True,
        "ff_activation": config.activation("hidden_activation", "gelu"),
        "ff_no_bias": not config.flag("mlp_bias", False),
        "num_tokens": config.integer("vocab_size"),
        "max_seq_len": config.integer("max_position_embeddings", 8192),
        "post_emb_norm": True,
    }
    transform = config.activation("classifier_activation", "gelu"), config.flag("classifier_bias", False)
    logits_bias = config.flag("decoder_bias", True)
    if config.base:
        settings |= {"return_only_embed": True}
    else:
        settings |= {"tie_embedding": True, "logits_scale": 1.0, "logits_bias": logits_bias}
        settings |= {"logits_transform": transform[0], "logits_transform_bias": transform[1]}
    return {"": Component(_pattern(config, layers, far), settings, _rows(), layers)}


def _pattern(config: Config, layers: int, theta: float) -> str:
    """Of layers with a window on both sides, and of some without that rotate by another base, theta."""
    every = config.integer("global_attn_every_n_layers", 3)
    usual = named("sliding_attention", "full_attention", (i % every > 0 for i in range(layers)))
    types = layer_types(config, usual, KINDS)
    side = config.integer("local_attention", 128) // 2
    options = {
        "full_attention": [f"rotary_theta={theta!r}"],
        "sliding_attention": [f"max_attend_past={side}", f"max_attend_future={side}"],
    }
    own = [(["norm=false"] if i == 0 else []) + options[each] for i, each in enumerate(types)]
    return repeated([f"a({', '.join(each)}) f" for each in own])


def _theta(config: Config, ropes: Config, kind: str) -> float:
    usual, older = KINDS[kind]
    rope = ropes.nested(kind)
    rope.only("rope_type", "default", "rotary positions are scaled")
    return rope.number("rope_theta", config.number(older, usual))


def _rows() -> list[Row]:
    words = "model.embeddings.tok_embeddings"
    return [
        Weight("token_emb", words),
        Weight("post_emb_norm", "model.embeddings.norm"),
        Weight("a.norm", LAYER + "attn_norm"),
        Weight("a.layer.to_qkv", LAYER + "attn.Wqkv"),
        Weight("a.layer.output.to_out", LAYER + "attn.Wo"),
        Weight("f.norm", LAYER + "mlp_norm"),
        Weight("f.layer.to_hidden", LAYER + "mlp.Wi"),
        Weight("f.layer.to_out", LAYER + "mlp.Wo"),
        Weight("attn_layers.norm", "model.final_norm"),
        Weight("logits_transform.project", "head.dense"),
        Weight("logits_transform.norm", "head.norm"),
        Weight("logits_bias", "decoder.bias"),
        Tied("decoder.weight", words + ".weight"),
    ]


FAMILY = Family(
    model_types=("modernbert",),
    architectures=("ModernBertForMaskedLM",),
    base="ModernBertModel",
    prefix="model.",
    source="arXiv:2412.13663",
    read=_read,
)
