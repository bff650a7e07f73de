"""Qwen3-Next (Qwen, 2025): three gated delta nets for each gated attention, and experts with a gated shared one."""

from __future__ import annotations

from typing import Any

from .config import Config
from .decoder import LAYER, decoder_sizes, gated_rows, gated_settings, logits_rows, logits_settings, rotary_settings
from .experts import expert_rows, gated_experts, sparse_layers
from .family import ByHead, Component, Family, Layout, PartOf, Row, Weight
from .gated_delta import MIXER, delta_rows, delta_settings, key_and_value_features
from .layers import each_last, layer_types, named, repeated

_MIXER = {"linear_attention": "gdn", "full_attention": "a"}


def _read(config: Config) -> dict[str, Component]:
    layers = config.integer("num_hidden_layers", 48)
    sizes = decoder_sizes(config, kv_heads=2, dim_head=256, length=32768)
    every = each_last(config, layers, "full_attention_interval", 4)
    types = layer_types(config, named("full_attention", "linear_attention", every), _MIXER)
    sparse = sparse_layers(config, layers)
    config.only("hidden_act", "silu", "convolutions have the activation of the feedforwards")
    bias, eps = config.flag("attention_bias", False), config.number("rms_norm_eps", 1e-6)
    settings = {
        **sizes,
        **delta_settings(config, 16, 32, 128, 128),
        "gdn_out_norm_eps": eps,
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        "attn_gate_values": True,
        "attn_gate_bias": bias,
        "attn_qk_rmsnorm": "head",
        "attn_qk_rmsnorm_eps": eps,
        "use_rmsnorm": True,
        "norm_eps": eps,
        "norm_unit_offset": True,
        **rotary_settings(config, sizes["attn_dim_head"], share=0.25),
        **gated_settings(config),
        **_experts(config),
        **logits_settings(config),
    }
    if "a" not in {_MIXER[kind] for kind in types}:
        settings = {name: value for name, value in settings.items() if not name.startswith("rotary")}
    blocks = [f"{_MIXER[kind]} {'e' if experts else 'f'}" for kind, experts in zip(types, sparse, strict=True)]
    return {"": Component(repeated(blocks), settings, _rows(config, settings), blocks)}


def _experts(config: Config) -> dict[str, Any]:
    return {
        **gated_experts(config, config.integer("moe_intermediate_size", 512), (512, 10)),
        "moe_renormalise": config.flag("norm_topk_prob", True),
        "moe_shared_inner": config.integer("shared_expert_intermediate_size", 512),
        "moe_shared_gate": True,
    }


def _rows(config: Config, settings: dict[str, Any]) -> list[Row]:
    _, values = key_and_value_features(settings)
    groups, of_keys = settings["gdn_heads"], settings["gdn_dim_head"]
    of_values, shared = values // groups, (settings["gdn_value_heads"] or groups) // groups
    d, kv_heads = settings["attn_dim_head"], settings["attn_kv_heads"] or settings["heads"]
    query = settings["heads"] * d
    by_head = ByHead(settings["heads"], (d, d))  # each head's query, and its gate
    attention = LAYER + "self_attn."
    return [
        Weight("token_emb", "model.embed_tokens"),
        *(Weight(f"{kind}.norm", LAYER + "input_layernorm") for kind in ("a", "gdn")),
        Weight("gdn.layer.to_qkvg", MIXER + "in_proj_qkvz", ByHead(groups, (of_keys, of_keys, of_values, of_values))),
        Weight("gdn.layer.to_beta_decay", MIXER + "in_proj_ba", ByHead(groups, (shared, shared))),
        Weight("gdn.layer.conv", MIXER + "conv1d"),
        *delta_rows("out_proj", "norm"),
        Weight(
            "a.layer.to_qkv",
            tuple(f"{attention}{part}_proj" for part in "qkv"),
            (PartOf(0, query, by_head), Layout(), Layout()),
            sizes=(query, kv_heads * d, kv_heads * d),
        ),
        Weight("a.layer.output.to_gate", attention + "q_proj", PartOf(query, 2 * query, by_head)),
        *(Weight(f"a.layer.qk_norm.{part}", f"{attention}{part}_norm") for part in "qk"),
        Weight("a.layer.output.to_out", attention + "o_proj"),
        *(Weight(f"{kind}.norm", LAYER + "post_attention_layernorm") for kind in "ef"),
        *gated_rows(),
        *expert_rows(settings["moe_experts"]),
        Weight("e.layer.shared.to_hidden", tuple(f"{LAYER}mlp.shared_expert.{part}_proj" for part in ("up", "gate"))),
        Weight("e.layer.shared.to_out", LAYER + "mlp.shared_expert.down_proj"),
        Weight("e.layer.shared_gate", LAYER + "mlp.shared_expert_gate"),
        Weight("attn_layers.norm", "model.norm"),
        *logits_rows(config),
    ]


FAMILY = Family(
    model_types=("qwen3_next",),
    architectures=("Qwen3NextForCausalLM",),
    base="Qwen3NextModel",
    prefix="model.",
    source="https://huggingface.co/Qwen/Qwen3-Next-80B-A3B-Instruct",
    read=_read,
    ignored=("rotary_emb.inv_freq", "mtp."),
)
