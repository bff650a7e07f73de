"""GPT-2 (Radford et al., 2019): pre-norm, learned positions, biases everywhere, tied logits."""

from __future__ import annotations

from ..registry.options import spell
from .config import Config
from .decoder import logits_rows, logits_settings
from .family import TRANSPOSED, Component, Family, Row, Weight
from .layers import repeated

LAYER = "transformer.h.{i}."


def _read(config: Config) -> dict[str, Component]:
    dim, layers = config.integer("n_embd", 768), config.integer("n_layer", 12)
    heads = config.integer("n_head", 12)
    config.only("add_cross_attention", False, "blocks of cross-attention beside those of the decoder")
    config.ignore("n_ctx", "reorder_and_upcast_attn")  # the order of two products in half precision
    config.ignore(
        *(f"summary_{name}" for name in ("type", "use_proj", "activation", "proj_to_labels", "first_dropout"))
    )
    dim_head = config.per_head(dim, heads, "n_embd", "n_head")
    pattern, scale = _layers(config, layers, dim_head)
    settings = {
        "dim": dim,
        "heads": heads,
        "attn_dim_head": dim_head,
        "attn_qkv_bias": True,
        "attn_out_bias": True,
        **scale,
        "causal": True,
        "norm_eps": config.number("layer_norm_epsilon", 1e-5),
        "ff_inner": config.integer("n_inner", 4 * dim),
        "ff_activation": config.activation("activation_function", "gelu_new"),
        "num_tokens": config.integer("vocab_size", 50257),
        "max_seq_len": config.integer("n_positions", 1024),
        **logits_settings(config, tied=True),
    }
    weights: list[Row] = [
        Weight("token_emb", "transformer.wte"),
        Weight("pos_emb.embedding", "transformer.wpe"),
        Weight("a.norm", LAYER + "ln_1"),
        Weight("a.layer.to_qkv", LAYER + "attn.c_attn", TRANSPOSED),
        Weight("a.layer.output.to_out", LAYER + "attn.c_proj", TRANSPOSED),
        Weight("f.norm", LAYER + "ln_2"),
        Weight("f.layer.to_hidden", LAYER + "mlp.c_fc", TRANSPOSED),
        Weight("f.layer.to_out", LAYER + "mlp.c_proj", TRANSPOSED),
        Weight("attn_layers.norm", "transformer.ln_f"),
        *logits_rows(config, tied=True, embedding="transformer.wte"),
    ]
    return {"": Component(pattern, settings, weights, layers)}


def _layers(config: Config, layers: int, dim_head: int) -> tuple[str, dict[str, float]]:
    """The pattern, and the factor of the scores; divided by the layer's number, each layer says its own (Mistral's)."""
    scale = dim_head**-0.5 if config.flag("scale_attn_weights", True) else 1.0
    if config.flag("scale_attn_by_inverse_layer_idx", False):
        return repeated([f"a(qk_scale={spell(scale / (i + 1))}) f" for i in range(layers)]), {}
    return f"(a f)*{layers}", {} if scale == dim_head**-0.5 else {"attn_qk_scale": scale}


FAMILY = Family(
    model_types=("gpt2",),
    architectures=("GPT2LMHeadModel",),
    base="GPT2Model",
    prefix="transformer.",
    source="Radford et al., 2019",
    read=_read,
    ignored=("attn.bias", "attn.masked_bias"),  # the causal mask
)
