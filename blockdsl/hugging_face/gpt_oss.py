"""gpt-oss 20b and 120b (OpenAI, arXiv:2508.10925): sinks, windows in every other layer, experts with bounded gates.

The released weights are quantised to four bits (MXFP4), which are not read; models of transformers and folders of
plain numbers are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .config import Config
from .decoder import LAYER, attention_rows, decoder_sizes, layers_of, logits_rows, logits_settings, rotary_settings
from .experts import balance_loss
from .family import Component, Family, Layout, Reordered, Row, Weight


@dataclass(frozen=True)
class Alternating(Layout):
    """(experts, in, 2 · hidden), gate and what is gated in turn; ours is (experts, 2 · hidden, in), gates first.

    Their biases are (experts, 2 · hidden).
    """

    def ours(self, theirs: Any) -> Any:
        rows = theirs.mT if theirs.ndim == 3 else theirs
        return rows.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2)

    def theirs(self, ours: Any) -> Any:
        rows = ours.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
        return rows.mT if rows.ndim == 3 else rows


def _read(config: Config) -> dict[str, Component]:
    layers = config.integer("num_hidden_layers", 36)
    sizes = decoder_sizes(config, kv_heads=8, dim_head=64, length=131_072)
    windows = [i % 2 == 0 for i in range(layers)]
    pattern, window = layers_of(config, config.optional("sliding_window", 128), windows, block="a e")
    bias, experts = config.flag("attention_bias", True), config.integer("num_local_experts", 128)
    config.only("hidden_act", "silu", "the experts' gate is x · sigmoid(1.702 x) whatever it says")
    config.only("swiglu_alpha", 1.702, "the factor in the experts' gate is another")
    config.ignore("initial_context_length", "experts_per_token")  # of OpenAI's own code
    top, inner = config.integer("num_experts_per_tok", 4), config.integer("intermediate_size", 2880)
    settings = {
        **sizes,
        **window,
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        "attn_sink": True,
        "use_rmsnorm": True,
        "norm_eps": config.number("rms_norm_eps", 1e-5),
        **rotary_settings(config, sizes["attn_dim_head"], theta=150_000.0),
        "moe_experts": experts,
        "moe_top": top,
        "moe_inner": inner,
        "moe_glu": True,
        "moe_gate_first": True,
        "moe_activation": "quick_gelu",
        "moe_glu_limit": config.number("swiglu_limit", 7.0),
        "moe_glu_offset": 1.0,
        "moe_router_bias": True,
        **balance_loss(config, top),
        **logits_settings(config),
    }
    rows: list[Row] = [
        Weight("token_emb", "model.embed_tokens"),
        Weight("a.norm", LAYER + "input_layernorm"),
        *attention_rows(sizes),
        Weight("a.layer.sink.logits", LAYER + "self_attn.sinks"),
        Weight("e.norm", LAYER + "post_attention_layernorm"),
        Weight("e.layer.router", LAYER + "mlp.router"),
        *_of_experts("to_hidden", "gate_up_proj", Alternating()),
        *_of_experts("to_out", "down_proj", Reordered((experts, inner, sizes["dim"]), (0, 2, 1))),
        Weight("attn_layers.norm", "model.norm"),
        *logits_rows(config),
    ]
    return {"": Component(pattern, settings, rows, ["a e"] * layers)}


def _of_experts(ours: str, theirs: str, layout: Layout) -> list[Row]:
    names = {"weight": theirs, "bias": f"{theirs}_bias"}
    return [Weight(f"e.layer.{ours}.{own}", f"{LAYER}mlp.experts.{name}", layout) for own, name in names.items()]


FAMILY = Family(
    model_types=("gpt_oss",),
    architectures=("GptOssForCausalLM",),
    base="GptOssModel",
    prefix="model.",
    source="arXiv:2508.10925",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
