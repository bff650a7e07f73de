"""ALBERT (Lan et al., arXiv:1909.11942): BERT whose layers share their weights, with a narrow embedding."""

from __future__ import annotations

from .config import Config
from .encoder import embedding_rows, encoder_settings, head_rows, head_settings, without_pooler
from .family import Component, Family, Row, Weight
from .layers import repeated

PREFIX, HEAD = "albert.", "predictions."


def _read(config: Config) -> dict[str, Component]:
    config.only("is_decoder", False, "transformers has no causal ALBERT")
    settings = encoder_settings(config, "gelu_new") | {"emb_dim": config.integer("embedding_size", 128)}
    if settings["emb_dim"] == settings["dim"]:
        raise config.lacks(f"embedding_size={settings['dim']}", "a linear layer leads from it to as many features")
    config.ignore("down_scale_factor", "gap_size", "net_structure_type", "num_memory_blocks")  # nothing reads them
    settings |= head_settings(config, settings["ff_activation"], True)
    layers, groups = config.integer("num_hidden_layers"), config.integer("num_hidden_groups", 1)
    inner = config.integer("inner_group_num", 1)
    owners = [int(i / (layers / groups)) * inner + j for i in range(layers) for j in range(inner)]
    weights = [
        *embedding_rows(PREFIX),
        Weight("project_emb", PREFIX + "encoder.embedding_hidden_mapping_in"),
        *(row for number in range(groups * inner) for row in _layer(number, *divmod(number, inner))),
        Weight("pooler", PREFIX + "pooler"),
        *head_rows(PREFIX, HEAD + "dense", HEAD + "LayerNorm", HEAD + "bias", HEAD + "decoder"),
    ]
    return {"": Component(repeated([f"a@a{n} f@f{n}" for n in owners]), settings, weights, 1)}


def _layer(number: int, group: int, place: int) -> list[Row]:
    """Of the layer that all of this number are."""
    a, f = f"a{number + 1}", f"f{number + 1}"
    layer = f"{PREFIX}encoder.albert_layer_groups.{group}.albert_layers.{place}."
    return [
        Weight(f"{a}.layer.to_qkv", tuple(f"{layer}attention.{part}" for part in ("query", "key", "value"))),
        Weight(f"{a}.layer.output.to_out", layer + "attention.dense"),
        Weight(f"{a}.norm", layer + "attention.LayerNorm"),
        Weight(f"{f}.layer.to_hidden", layer + "ffn"),
        Weight(f"{f}.layer.to_out", layer + "ffn_output"),
        Weight(f"{f}.norm", layer + "full_layer_layer_norm"),
    ]


FAMILY = Family(
    model_types=("albert",),
    architectures=("AlbertForMaskedLM",),
    base="AlbertModel",
    prefix=PREFIX,
    source="arXiv:1909.11942",
    read=_read,
    ignored=("embeddings.position_ids",),
    unused=tuple(
        f"{module}.{name}" for module in ("pooler", "sop_classifier.classifier") for name in ("weight", "bias")
    ),
    amended=without_pooler,
)
