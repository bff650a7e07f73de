"""Rotary positions of a configuration: their base, the share of a head that is rotated, and every scaling."""

from __future__ import annotations

import math
from typing import Any

from .config import Config

NAMES = {"su": "longrope", "ntk": "dynamic"}  # in older files


def rotary_settings(
    config: Config, dim_head: int, theta: float = 10000.0, share: float | None = None
) -> dict[str, Any]:
    """Settings of rotary positions.

    They are in `rope_parameters` or, in files of releases before 5, in `rope_theta`, `partial_rotary_factor` and
    `rope_scaling`, which wins where there are both.

    Args:
        theta, share: of the family, where the configuration does not say; no share: it rotates whole heads, always.
    """
    rope = config.nested("rope_scaling") if config.get("rope_scaling", {}) else config.nested("rope_parameters")
    if share is None:
        for said in (rope, config):
            said.only("partial_rotary_factor", 1.0, "transformers rotates whole heads of this family")
    else:
        share = rope.number("partial_rotary_factor", config.number("partial_rotary_factor", share))
    scaled = scaling(config, rope)
    return {
        "rotary_pos_emb": True,
        "rotary_emb_dim": dim_head if share is None else int(dim_head * share),
        "rotary_theta": rope.number("rope_theta", config.number("rope_theta", theta)),
        **{f"rotary_{name}": value for name, value in scaled.items() if value is not None},
        **_length(config, scaled),
    }


def _length(config: Config, scaled: dict[str, Any]) -> dict[str, int]:
    """The longest text, where a scaling begins at the one that the configuration gives."""
    if scaled.get("scaling") not in ("dynamic", "yarn"):
        return {}
    return {
        "max_seq_len": max(config.integer("max_position_embeddings"), int(scaled["factor"] * scaled["original_len"]))
    }


def scaling(config: Config, rope: Config) -> dict[str, Any]:
    """How rotary positions are scaled, by the names of our settings without `rotary_`.

    Args:
        config: the whole configuration.
        rope: the part of it that says it.

    Raises:
        UserError: there is no option for it.
    """
    kind = rope.word("rope_type", rope.word("type", "default"))
    rope.ignore("type")
    kind = NAMES.get(kind, kind)
    if kind == "default":
        return {}
    if kind not in _SCALINGS:
        raise rope.lacks(f"rope_type={kind!r}", "rotary positions are scaled in another way")
    return {"scaling": kind, **_SCALINGS[kind](config, rope)}


def _linear(config: Config, rope: Config) -> dict[str, Any]:
    return {"factor": rope.number("factor")}


def _dynamic(config: Config, rope: Config) -> dict[str, Any]:
    longest = config.integer("max_position_embeddings")
    rope.only("original_max_position_embeddings", longest, "frequencies change from another length on")
    return {"factor": rope.number("factor"), "original_len": longest}


def _llama3(config: Config, rope: Config) -> dict[str, Any]:
    return {
        "factor": rope.number("factor"),
        "original_len": _original(config, rope),
        "low_freq_factor": rope.number("low_freq_factor"),
        "high_freq_factor": rope.number("high_freq_factor"),
    }


def _yarn(config: Config, rope: Config) -> dict[str, Any]:
    rope.ignore("finetuned")
    original = _original(config, rope)
    factor = rope.number("factor", config.integer("max_position_embeddings") / original)
    return {
        "factor": factor,
        "original_len": original,
        "beta_fast": rope.number("beta_fast", 32.0, least=0) or 32.0,
        "beta_slow": rope.number("beta_slow", 1.0, least=0) or 1.0,
        "truncate": rope.flag("truncate", True),
        "attention_factor": _attention_factor(rope, factor),
    }


def _attention_factor(rope: Config, factor: float) -> float | None:
    """Of YaRN, said or by DeepSeek's two scales; none: the paper's."""
    own, scale, of_all = (_optional(rope, name) for name in ("attention_factor", "mscale", "mscale_all_dim"))
    if own is None and scale and of_all and factor > 1:
        over, under = (0.1 * each * math.log(factor) + 1 for each in (scale, of_all))
        return over / under
    return own


def _longrope(config: Config, rope: Config) -> dict[str, Any]:
    original = _original(config, rope)
    ratio = config.integer("max_position_embeddings") / original
    return {
        "original_len": original,
        "factor": max(1.0, rope.number("factor", ratio)),
        "attention_factor": _optional(rope, "attention_factor"),
        "short_factors": rope.numbers("short_factor"),
        "long_factors": rope.numbers("long_factor"),
    }


def _optional(rope: Config, name: str) -> float | None:
    return None if rope.get(name, None) is None else rope.number(name, least=0)


def _original(config: Config, rope: Config) -> int:
    """The longest text of the training: beside the scaling (Phi-3) before that within it."""
    within = rope.integer("original_max_position_embeddings", config.integer("max_position_embeddings"))
    return config.integer("original_max_position_embeddings", within)


_SCALINGS = {"linear": _linear, "dynamic": _dynamic, "llama3": _llama3, "yarn": _yarn, "longrope": _longrope}
