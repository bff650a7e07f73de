"""DistilBERT (Sanh et al., arXiv:1910.01108): BERT without token types and without a pooler."""

from __future__ import annotations

from .config import Config
from .family import Component, Family, Row, Tied, Weight

PREFIX, LAYER = "distilbert.", "distilbert.transformer.layer.{i}."


def _read(config: Config) -> dict[str, Component]:
    dim, heads, layers = config.integer("dim", 768), config.integer("n_heads", 12), config.integer("n_layers", 6)
    activation = config.activation("activation", "gelu")
    config.only("tie_word_embeddings", True, "logits of their own")
    config.ignore("sinusoidal_pos_embds")  # what the learned positions start from
    settings = {
        "dim": dim,
        "heads": heads,
        "attn_dim_head": config.per_head(dim, heads, "dim", "n_heads"),
        "attn_qkv_bias": True,
        "attn_out_bias": True,
        "pre_norm": False,
        "norm_eps": 1e-12,
        "ff_inner": config.integer("hidden_dim", 3072),
        "ff_activation": activation,
        "num_tokens": config.integer("vocab_size"),
        "max_seq_len": config.integer("max_position_embeddings", 512),
        "post_emb_norm": True,
    }
    if config.base:
        settings |= {"return_only_embed": True}
    else:
        settings |= {"tie_embedding": True, "logits_scale": 1.0, "logits_bias": True, "logits_transform": activation}
    return {"": Component(f"(a f)*{layers}", settings, _rows(), layers)}


def _rows() -> list[Row]:
    words = PREFIX + "embeddings.word_embeddings"
    return [
        Weight("token_emb", words),
        Weight("pos_emb.embedding", PREFIX + "embeddings.position_embeddings"),
        Weight("post_emb_norm", PREFIX + "embeddings.LayerNorm"),
        Weight("a.layer.to_qkv", tuple(f"{LAYER}attention.{part}_lin" for part in "qkv")),
        Weight("a.layer.output.to_out", LAYER + "attention.out_lin"),
        Weight("a.norm", LAYER + "sa_layer_norm"),
        Weight("f.layer.to_hidden", LAYER + "ffn.lin1"),
        Weight("f.layer.to_out", LAYER + "ffn.lin2"),
        Weight("f.norm", LAYER + "output_layer_norm"),
        Weight("logits_transform.project", "vocab_transform"),
        Weight("logits_transform.norm", "vocab_layer_norm"),
        Weight("logits_bias", "vocab_projector.bias"),
        Tied("vocab_projector.weight", words + ".weight"),
    ]


FAMILY = Family(
    model_types=("distilbert",),
    architectures=("DistilBertForMaskedLM",),
    base="DistilBertModel",
    prefix=PREFIX,
    source="arXiv:1910.01108",
    read=_read,
    ignored=("embeddings.position_ids",),
)
