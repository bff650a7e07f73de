"""Gemma 3 on text (arXiv:2503.19786): norms of queries and keys, windows in five of six layers, two rotary bases."""

from __future__ import annotations

from .config import Config
from .decoder import repeated
from .family import Component, Family
from .gemma import gemma_settings, gemma_sizes, optional_number, sandwich_rows, windowed_layers


def _read(config: Config) -> dict[str, Component]:
    sizes = gemma_sizes(config)
    windowed = windowed_layers(config, config.integer("sliding_window_pattern", 6))
    config.ignore("cache_implementation", "hidden_act", "_sliding_window_pattern")
    config.only("attn_logit_softcapping", None, "scores are capped")
    cap, eps = optional_number(config, "final_logit_softcapping", None), config.number("rms_norm_eps", 1e-6)
    local, everywhere = _rotary(config)
    settings = {
        **sizes,
        **gemma_settings(config, sizes),
        "sandwich_norm": True,
        "attn_qk_rmsnorm": "head",
        "attn_qk_rmsnorm_eps": eps,
        "attn_qk_scale": config.number("query_pre_attn_scalar", 256) ** -0.5,
        "ff_activation": config.activation("hidden_activation", "gelu_pytorch_tanh"),
        "rotary_pos_emb": True,
        "rotary_emb_dim": sizes["attn_dim_head"],
        **({} if config.base or cap is None else {"logits_softcap": cap}),
    }
    window = config.integer("sliding_window", 4096) - 1  # theirs counts the token itself
    text = repeated([f"a(max_attend_past={window}{local}) f" if own else f"a({everywhere}) f" for own in windowed])
    return {"": Component(text, settings, sandwich_rows(config, sizes), len(windowed))}


def _rotary(config: Config) -> tuple[str, str]:
    """Options of a block's rotary positions: of one with a window, after others, and of one without."""
    ropes = config.nested("rope_parameters")
    local, everywhere = ropes.nested("sliding_attention"), ropes.nested("full_attention")
    local.only("rope_type", "default", "rotary positions of windows are scaled")
    scaling = config.nested("rope_scaling") if not everywhere.values else everywhere  # in older files
    options = [f"rotary_theta={everywhere.number('rope_theta', config.number('rope_theta', 1e6))!r}"]
    kind = scaling.word("rope_type", "default")
    if kind == "linear":
        options += ["rotary_scaling=linear", f"rotary_factor={scaling.number('factor')!r}"]
    elif kind != "default":
        raise scaling.lacks(f"rope_type={kind!r}", "rotary positions are scaled in another way")
    theta = local.number("rope_theta", config.number("rope_local_base_freq", 1e4))
    return f", rotary_theta={theta!r}" if theta != 1e4 else "", ", ".join(options)


FAMILY = Family(
    model_types=("gemma3_text",),
    architectures=("Gemma3ForCausalLM",),
    base="Gemma3TextModel",
    prefix="model.",
    source="arXiv:2503.19786",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
