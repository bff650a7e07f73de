"""What decoders in the manner of LLaMA share: heads, rotary positions, logits, and the names of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .config import Config
from .family import Row, Tied, Weight
from .layers import layer_types, named, repeated
from .rope import rotary_settings as rotary_settings

LAYER = "model.layers.{i}."

_WINDOWS = ("full_attention", "sliding_attention")


def decoder_sizes(
    config: Config, kv_heads: int | None = None, dim_head: int | None = None, length: int = 2048
) -> dict[str, Any]:
    """Width, heads, vocabulary and length.

    Args:
        kv_heads, dim_head, length: of the family, where the configuration does not say; None: as many as heads, and
            the width over them.
    """
    dim, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    kv_heads = config.optional("num_key_value_heads", kv_heads) or heads
    config.ignore("head_dim")
    if dim_head is None and config.values.get("head_dim") is None:
        dim_head = config.per_head(dim, heads, "hidden_size", "num_attention_heads")
    return {
        "dim": dim,
        "heads": heads,
        "attn_dim_head": config.integer("head_dim", dim_head),
        "attn_kv_heads": None if kv_heads == heads else kv_heads,
        "causal": True,
        "num_tokens": config.integer("vocab_size"),
        "max_seq_len": config.integer("max_position_embeddings", length),
    }


def gated_settings(config: Config, bias: bool = False) -> dict[str, Any]:
    """A gated feedforward with hidden features as a number."""
    return {
        "ff_inner": config.integer("intermediate_size"),
        "ff_glu": True,
        "ff_activation": config.activation("hidden_act", "silu"),
        "ff_no_bias": not bias,
    }


def layers_of(
    config: Config, window: int | None, sliding: Sequence[bool], rotated: Sequence[bool] = (), block: str = "a f"
) -> tuple[str, dict[str, Any]]:
    """The pattern of the layers, and the settings that all of them share.

    Args:
        window: tokens that a token attends to, itself among them, in layers with a window; None: there is none.
        sliding: which layers have it, where the configuration does not say by `layer_types`.
        rotated: which layers have rotary positions; empty: all.
        block: a layer; its attention comes first.
    """
    types = layer_types(config, named("sliding_attention", "full_attention", sliding), _WINDOWS)
    own = [window is not None and each == "sliding_attention" for each in types]
    past = 0 if window is None else window - 1
    texts = []
    for i, has_window in enumerate(own):
        options = [f"max_attend_past={past}"] if has_window and not all(own) else []
        options += ["rotary=false"] if rotated and not rotated[i] else []
        texts.append(f"a({', '.join(options)}){block[1:]}" if options else block)
    return repeated(texts), {"attn_max_attend_past": past} if all(own) else {}


def logits_settings(config: Config, tied: bool = False, bias: bool = False) -> dict[str, Any]:
    """Logits as they come, by a matrix of their own or the embedding's; none of a class without a head.

    Args:
        tied: whether they are the embedding's where the configuration does not say.
        bias: whether they have one.
    """
    tied = config.flag("tie_word_embeddings", tied)
    if config.base:
        return {"return_only_embed": True}
    return {"tie_embedding": True, "logits_scale": 1.0, "logits_bias": bias} if tied else {"logits_bias": bias}


def decoder_rows(config: Config, sizes: dict[str, Any], tied: bool = False) -> list[Row]:
    """The weights of a decoder whose norms are before attention and before a gated feedforward.

    Args:
        sizes: of `decoder_sizes`.
        tied: as in `logits_settings`.
    """
    return [
        Weight("token_emb", "model.embed_tokens"),
        Weight("a.norm", LAYER + "input_layernorm"),
        *attention_rows(sizes),
        Weight("f.norm", LAYER + "post_attention_layernorm"),
        *gated_rows(),
        Weight("attn_layers.norm", "model.norm"),
        *logits_rows(config, tied),
    ]


def attention_rows(sizes: dict[str, Any], out: str = "o_proj") -> list[Row]:
    """Queries, keys and values, each their own, and the output, which is called `out`; biases where there are some."""
    query = sizes["heads"] * sizes["attn_dim_head"]
    keys = (sizes["attn_kv_heads"] or sizes["heads"]) * sizes["attn_dim_head"]
    parts = tuple(f"{LAYER}self_attn.{part}_proj" for part in "qkv")
    return [
        Weight("a.layer.to_qkv", parts, sizes=(query, keys, keys)),
        Weight("a.layer.output.to_out", f"{LAYER}self_attn.{out}"),
    ]


def gated_rows() -> list[Row]:
    """A gated feedforward: the gate comes last here."""
    return [
        Weight("f.layer.to_hidden", (LAYER + "mlp.up_proj", LAYER + "mlp.gate_proj")),
        Weight("f.layer.to_out", LAYER + "mlp.down_proj"),
    ]


def logits_rows(
    config: Config, tied: bool = False, embedding: str = "model.embed_tokens", head: str = "lm_head"
) -> list[Row]:
    """Of the head, whose matrix may be the embedding's."""
    if config.flag("tie_word_embeddings", tied):
        return [Tied(f"{head}.weight", f"{embedding}.weight"), Weight("logits_bias", f"{head}.bias")]
    return [Weight("to_logits", head)]
