"""MPT (MosaicML, 2023): ALiBi, no biases, not even of norms, tied logits."""

from __future__ import annotations

from .config import Config
from .decoder import logits_rows, logits_settings
from .family import Component, Family, Row, Weight

LAYER = "transformer.blocks.{i}."


def _read(config: Config) -> dict[str, Component]:
    dim, layers = config.integer("d_model", 2048), config.integer("n_layers", 24)
    heads = config.integer("n_heads", 16)
    _check(config)
    settings = {
        "dim": dim,
        "heads": heads,
        "attn_dim_head": config.per_head(dim, heads, "d_model", "n_heads"),
        "attn_qk_scale": _scale(config),
        "causal": True,
        "norm_eps": config.number("layer_norm_epsilon", 1e-5),
        "norm_bias": False,
        "alibi_pos_bias": True,
        "use_abs_pos_emb": False,
        "ff_inner": 4 * dim,
        "ff_no_bias": True,
        "num_tokens": config.integer("vocab_size", 50368),
        "max_seq_len": config.integer("max_seq_len", 2048),
        **logits_settings(config, tied=True),
    }
    weights: list[Row] = [
        Weight("token_emb", "transformer.wte"),
        Weight("a.norm", LAYER + "norm_1"),
        Weight("a.layer.to_qkv", LAYER + "attn.Wqkv"),
        Weight("a.layer.output.to_out", LAYER + "attn.out_proj"),
        Weight("f.norm", LAYER + "norm_2"),
        Weight("f.layer.to_hidden", LAYER + "ffn.up_proj"),
        Weight("f.layer.to_out", LAYER + "ffn.down_proj"),
        Weight("attn_layers.norm", "transformer.norm_f"),
        *logits_rows(config, tied=True, embedding="transformer.wte"),
    ]
    return {"": Component(f"(a f)*{layers}", settings, weights, layers)}


def _scale(config: Config) -> float | None:
    attention = config.nested("attn_config")
    attention.only("attn_type", "multihead_attention", "all heads share keys and values")
    attention.only("clip_qkv", None, "queries, keys and values are clipped")
    attention.only("qk_ln", False, "queries and keys are normed")
    attention.only("prefix_lm", False, "tokens of a prefix attend both ways")
    attention.only("attn_uses_sequence_id", False, "tokens attend within a part of the row")
    attention.only("alibi", True, "positions are learned")
    attention.only("alibi_bias_max", 8, "ALiBi has other slopes")
    attention.ignore("attn_impl")
    return attention.get("softmax_scale", None)


def _check(config: Config) -> None:
    config.only("expansion_ratio", 4, "hidden features are other than four times the width")
    config.only("no_bias", True, "linear layers have biases")
    config.only("logit_scale", None, "logits are scaled")
    if "layernorm" not in config.word("norm_type", "low_precision_layernorm"):
        raise config.lacks(f"norm_type={config.word('norm_type')!r}", "norms are no LayerNorm")
    config.ignore("learned_pos_emb", "init_device", "init_config", "embedding_fraction", "verbose", "tokenizer_name")


FAMILY = Family(
    model_types=("mpt",),
    architectures=("MptForCausalLM", "MPTForCausalLM"),  # the second is of code that published files bring
    base="MptModel",
    prefix="transformer.",
    source="mosaicml.com/blog/mpt-7b",
    read=_read,
)
