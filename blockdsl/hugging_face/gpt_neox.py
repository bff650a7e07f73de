"""GPT-NeoX and Pythia (arXiv:2204.06745, arXiv:2304.01373): two norms side by side, a quarter of a head rotated."""

from __future__ import annotations

from .config import Config
from .decoder import logits_rows, logits_settings, rotary_settings
from .family import ByHead, Component, Family, Row, Weight

LAYER = "gpt_neox.layers.{i}."


def _read(config: Config) -> dict[str, Component]:
    dim, layers = config.integer("hidden_size", 6144), config.integer("num_hidden_layers", 44)
    heads, bias = config.integer("num_attention_heads", 64), config.flag("attention_bias", True)
    side_by_side = config.flag("use_parallel_residual", True)
    config.ignore("is_decoder")
    dim_head = config.per_head(dim, heads, "hidden_size", "num_attention_heads")
    rotated, base = config.number("rotary_pct", 0.25), config.number("rotary_emb_base", 10000.0)  # of older files
    settings = {
        "dim": dim,
        "heads": heads,
        "attn_dim_head": dim_head,
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        "causal": True,
        "norm_eps": config.number("layer_norm_eps", 1e-5),
        **rotary_settings(config, dim_head, base, rotated),
        "ff_inner": config.integer("intermediate_size", 24576),
        "ff_activation": config.activation("hidden_act", "gelu"),
        "num_tokens": config.integer("vocab_size", 50432),
        "max_seq_len": config.integer("max_position_embeddings", 2048),
        **logits_settings(config),
    }
    weights: list[Row] = [
        Weight("token_emb", "gpt_neox.embed_in"),
        Weight("a.norm", LAYER + "input_layernorm"),
        Weight("a.layer.to_qkv", LAYER + "attention.query_key_value", ByHead(heads, (dim_head,) * 3)),
        Weight("a.layer.output.to_out", LAYER + "attention.dense"),
        Weight("f.norm", LAYER + "post_attention_layernorm"),
        Weight("f.layer.to_hidden", LAYER + "mlp.dense_h_to_4h"),
        Weight("f.layer.to_out", LAYER + "mlp.dense_4h_to_h"),
        Weight("attn_layers.norm", "gpt_neox.final_layer_norm"),
        *logits_rows(config, embedding="gpt_neox.embed_in", head="embed_out"),
    ]
    return {"": Component(f"({'a & f' if side_by_side else 'a f'})*{layers}", settings, weights, layers)}


FAMILY = Family(
    model_types=("gpt_neox",),
    architectures=("GPTNeoXForCausalLM",),
    base="GPTNeoXModel",
    prefix="gpt_neox.",
    source="arXiv:2204.06745",
    read=_read,
    ignored=("attention.bias", "attention.masked_bias", "rotary_emb.inv_freq"),
)
