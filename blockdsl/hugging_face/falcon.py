"""Falcon (arXiv:2311.16867): side by side, one key-value head and one norm (7B), or groups and two norms (40B)."""

from __future__ import annotations

import warnings
from typing import Any

from .config import Config
from .decoder import logits_rows, logits_settings, rotary_settings
from .family import ByHead, Component, Family, Row, Weight

LAYER = "transformer.h.{i}."


def _read(config: Config) -> dict[str, Component]:
    dim, layers = config.integer("hidden_size", 4544), config.integer("num_hidden_layers", 32)
    heads, bias = config.integer("num_attention_heads", 71), config.flag("bias", False)
    config.only("apply_residual_connection_post_layernorm", False, "the residual is taken after the norm")
    dim_head, kv_heads = config.per_head(dim, heads, "hidden_size", "num_attention_heads"), _kv_heads(config, heads)
    pattern, norms = _layer(config)
    settings = {
        "dim": dim,
        "heads": heads,
        "attn_dim_head": dim_head,
        "attn_kv_heads": None if kv_heads == heads else kv_heads,
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        "causal": True,
        "norm_eps": config.number("layer_norm_epsilon", 1e-5),
        **_positions(config, dim_head),
        "ff_inner": config.integer("ffn_hidden_size", 4 * dim),
        "ff_activation": config.activation("activation", "gelu"),
        "ff_no_bias": not bias,
        "num_tokens": config.integer("vocab_size", 65024),
        "max_seq_len": config.integer("max_position_embeddings", 2048),
        **logits_settings(config, tied=True),
    }
    fused = ByHead(kv_heads, (heads // kv_heads * dim_head, dim_head, dim_head))
    weights: list[Row] = [
        Weight("token_emb", "transformer.word_embeddings"),
        *(Weight(f"{block}.norm", LAYER + name) for block, name in norms.items()),
        Weight("a.layer.to_qkv", LAYER + "self_attention.query_key_value", fused),
        Weight("a.layer.output.to_out", LAYER + "self_attention.dense"),
        Weight("f.layer.to_hidden", LAYER + "mlp.dense_h_to_4h"),
        Weight("f.layer.to_out", LAYER + "mlp.dense_4h_to_h"),
        Weight("attn_layers.norm", "transformer.ln_f"),
        *logits_rows(config, tied=True, embedding="transformer.word_embeddings"),
    ]
    return {"": Component(f"({pattern})*{layers}", settings, weights, layers)}


def _positions(config: Config, dim_head: int) -> dict[str, Any]:
    rotary = rotary_settings(config, dim_head)
    if not config.flag("alibi", False):
        return rotary
    warnings.warn(
        "transformers rounds Falcon's ALiBi to bfloat16, which moves logits of long texts; here it is exact",
        stacklevel=5,
    )
    return {"alibi_pos_bias": True, "alibi_scale": dim_head**-0.5, "use_abs_pos_emb": False}


def _kv_heads(config: Config, heads: int) -> int:
    config.ignore("num_kv_heads", "multi_query")  # each form reads one of them
    if config.flag("new_decoder_architecture", False):
        return config.integer("num_kv_heads", heads)
    return 1 if config.flag("multi_query", True) else heads


def _layer(config: Config) -> tuple[str, dict[str, str]]:
    """The pattern of a layer, and the norms of its blocks under their names."""
    new, parallel = config.flag("new_decoder_architecture", False), config.flag("parallel_attn", True)
    norms = config.integer("num_ln_in_parallel_attn", 2 if new and parallel else 1)
    if not parallel and not new:
        return "a f", {"a": "input_layernorm", "f": "post_attention_layernorm"}
    if not parallel or (norms == 2 and not new):
        raise config.lacks(f"parallel_attn={parallel}, num_ln_in_parallel_attn={norms}", "no Falcon is like this")
    if norms == 2:
        return "a & f", {"a": "ln_attn", "f": "ln_mlp"}
    return "a & f(shared_norm)", {"a": "input_layernorm"}


FAMILY = Family(
    model_types=("falcon",),
    architectures=("FalconForCausalLM",),
    base="FalconModel",
    prefix="transformer.",
    source="arXiv:2311.16867",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
