"""StableLM (Bellagente et al., arXiv:2402.17834): LayerNorm, some features rotated, SwiGLU; of 12B parallel blocks."""

from __future__ import annotations

from .config import Config
from .decoder import (
    LAYER,
    attention_rows,
    decoder_sizes,
    gated_rows,
    gated_settings,
    logits_rows,
    logits_settings,
    rotary_settings,
)
from .family import Component, Family, Reordered, Row, Weight


def _read(config: Config) -> dict[str, Component]:
    layers, sizes = config.integer("num_hidden_layers"), decoder_sizes(config, length=4096)
    eps, parallel = config.number("layer_norm_eps", 1e-5), config.flag("use_parallel_residual", False)
    qk_norm = config.flag("qk_layernorm", False)
    settings = {
        **sizes,
        "attn_qkv_bias": config.flag("use_qkv_bias", False),
        **({"attn_qk_layernorm": "each", "attn_qk_layernorm_eps": eps} if qk_norm else {}),
        "norm_eps": eps,
        "shared_norm": parallel,
        **rotary_settings(config, sizes["attn_dim_head"], share=0.25),
        **gated_settings(config),
        **logits_settings(config),
    }
    heads = {"q": sizes["heads"], "k": sizes["attn_kv_heads"] or sizes["heads"]}
    each = Reordered((sizes["attn_dim_head"],))  # a row of our gains is a vector of theirs
    weights: list[Row] = [
        Weight("token_emb", "model.embed_tokens"),
        Weight("a.norm", LAYER + "input_layernorm"),
        *attention_rows(sizes),
        *(
            Weight(
                f"a.layer.qk_norm.{part}",
                tuple(f"{LAYER}self_attn.{part}_layernorm.norms.{head}" for head in range(count)),
                each,
            )
            for part, count in heads.items()
        ),
        Weight("f.norm", LAYER + "post_attention_layernorm"),
        *gated_rows(),
        Weight("attn_layers.norm", "model.norm"),
        *logits_rows(config),
    ]
    return {"": Component(f"({'a & f' if parallel else 'a f'})*{layers}", settings, weights, layers)}


FAMILY = Family(
    model_types=("stablelm",),
    architectures=("StableLmForCausalLM",),
    base="StableLmModel",
    prefix="model.",
    source="arXiv:2402.17834",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
