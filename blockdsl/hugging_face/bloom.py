"""BLOOM (arXiv:2211.05100): ALiBi, a norm of the embedding, biases everywhere, tied logits."""

from __future__ import annotations

from .config import Config
from .decoder import logits_rows, logits_settings
from .family import ByHead, Component, Family, Row, Weight

LAYER = "transformer.h.{i}."


def _read(config: Config) -> dict[str, Component]:
    dim, layers = (
        config.integer("hidden_size", config.integer("n_embed", 64)),
        config.integer("n_layer", config.integer("num_hidden_layers", 2)),
    )
    heads = config.integer("n_head", config.integer("num_attention_heads", 8))
    dim_head = config.per_head(dim, heads, "hidden_size", "n_head")
    config.only("apply_residual_connection_post_layernorm", False, "the residual is taken after the norm")
    config.only("n_inner", 4 * dim, "hidden features are other than four times the width")
    config.ignore("slow_but_exact", "attention_softmax_in_fp32", "masked_softmax_fusion", "bias_dropout_fusion")
    config.ignore("offset_alibi", "skip_bias_add", "skip_bias_add_qkv")
    settings = {
        "dim": dim,
        "heads": heads,
        "attn_dim_head": dim_head,
        "attn_qkv_bias": True,
        "attn_out_bias": True,
        "causal": True,
        "norm_eps": config.number("layer_norm_epsilon", 1e-5),
        "alibi_pos_bias": True,
        "use_abs_pos_emb": False,
        "post_emb_norm": True,
        "ff_inner": 4 * dim,
        "ff_activation": "gelu_tanh",
        "num_tokens": config.integer("vocab_size", 250880),
        "max_seq_len": config.integer("seq_length", 2048),
        **logits_settings(config, tied=True),
    }
    weights: list[Row] = [
        Weight("token_emb", "transformer.word_embeddings"),
        Weight("post_emb_norm", "transformer.word_embeddings_layernorm"),
        Weight("a.norm", LAYER + "input_layernorm"),
        Weight("a.layer.to_qkv", LAYER + "self_attention.query_key_value", ByHead(heads, (dim_head,) * 3)),
        Weight("a.layer.output.to_out", LAYER + "self_attention.dense"),
        Weight("f.norm", LAYER + "post_attention_layernorm"),
        Weight("f.layer.to_hidden", LAYER + "mlp.dense_h_to_4h"),
        Weight("f.layer.to_out", LAYER + "mlp.dense_4h_to_h"),
        Weight("attn_layers.norm", "transformer.ln_f"),
        *logits_rows(config, tied=True, embedding="transformer.word_embeddings"),
    ]
    return {"": Component(f"(a f)*{layers}", settings, weights, layers)}


FAMILY = Family(
    model_types=("bloom",),
    architectures=("BloomForCausalLM",),
    base="BloomModel",
    prefix="transformer.",
    source="arXiv:2211.05100",
    read=_read,
)
