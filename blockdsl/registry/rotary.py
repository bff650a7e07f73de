"""What rotary positions can be told, by the stack's settings or by a block that reads them.

Owns the declarations, and from settings to what a position node says. `xt_blocks.positions.rotary` computes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .options import Option, Value, in_digits

SWITCH = "rotary_pos_emb"
_ON = "rotary positions in self-attention (arXiv:2104.09864)"

_OF_ALL = (
    Option(
        "rotary_emb_dim",
        int,
        None,
        "features of each head that are rotated, an even number; none: half the head, or all of shared_key_dim",
        least=2,
        optional=True,
    ),
    Option(
        "rotary_theta",
        float,
        10_000.0,
        "base of the rotation's frequencies: larger for longer texts (Code Llama, arXiv:2308.12950)",
        above=1,
    ),
    Option(
        "rotary_interleaved",
        bool,
        False,
        "rotate neighbouring features together (GPT-J), not those half of the rotated ones apart",
    ),
    Option(
        "rotary_scaling",
        str,
        None,
        "how longer texts than those of the training rotate slower: positions divided by a factor (arXiv:2306.15595), "
        "a theta that grows with the text (dynamic NTK), by wavelength (Llama 3, arXiv:2407.21783), YaRN "
        "(arXiv:2309.00071), a factor for each frequency (LongRoPE, arXiv:2402.13753)",
        choices=("linear", "dynamic", "llama3", "yarn", "longrope"),
        optional=True,
    ),
)
_OF_SCALINGS = (
    Option(
        "rotary_factor",
        float,
        None,
        "how many times longer texts are; frequencies are divided by it",
        least=1,
        optional=True,
    ),
    Option("rotary_original_len", int, None, "longest text of the training", least=1, optional=True),
    Option(
        "rotary_low_freq_factor",
        float,
        1.0,
        "Llama 3: wavelengths above original_len over it are scaled whole",
        above=0,
    ),
    Option("rotary_high_freq_factor", float, 4.0, "Llama 3: wavelengths below original_len over it are left", above=0),
    Option("rotary_beta_fast", float, 32.0, "YaRN: pairs of at least so many cycles in original_len are left", above=0),
    Option("rotary_beta_slow", float, 1.0, "YaRN: pairs of at most so many are scaled whole", above=0),
    Option("rotary_truncate", bool, True, "YaRN: both limits are whole pairs, the next ones outwards (gpt-oss: false)"),
    Option(
        "rotary_attention_factor",
        float,
        None,
        "YaRN and LongRoPE: factor of rotated queries and keys; none: 0.1 ln(factor) + 1 of YaRN, "
        "the square root of (1 + ln(factor) / ln(original_len)) of LongRoPE",
        above=0,
        optional=True,
    ),
    Option(
        "rotary_short_factors",
        float,
        None,
        "LongRoPE: what each frequency is divided by in texts up to original_len",
        above=0,
        optional=True,
        many=True,
    ),
    Option("rotary_long_factors", float, None, "LongRoPE: the same in longer ones", above=0, optional=True, many=True),
)

ROTARY_SETTINGS = (
    Option(SWITCH, bool, False, _ON),
    *_OF_ALL,
    *_OF_SCALINGS,
    Option("rotary_xpos", bool, False, "rotary positions with a decay over distance, xPos (arXiv:2212.10554)"),
    Option("rotary_xpos_scale_base", int, 512, "distance over which xPos decays by a step", least=1),
)

NEEDED_BY_SCALING = {
    "linear": ("rotary_factor",),
    "dynamic": ("rotary_factor", "rotary_original_len"),
    "llama3": ("rotary_factor", "rotary_original_len"),
    "yarn": ("rotary_factor", "rotary_original_len"),
    "longrope": ("rotary_original_len", "rotary_short_factors", "rotary_long_factors"),
}
"""Settings that a scaling cannot be without."""

BY_LENGTH = ("dynamic", "longrope")
"""Scalings whose frequencies depend on how long the text is so far."""

_READ_BY_SCALING = {
    **NEEDED_BY_SCALING,
    "llama3": (*NEEDED_BY_SCALING["llama3"], "rotary_low_freq_factor", "rotary_high_freq_factor"),
    "yarn": (
        *NEEDED_BY_SCALING["yarn"],
        "rotary_beta_fast",
        "rotary_beta_slow",
        "rotary_truncate",
        "rotary_attention_factor",
    ),
    "longrope": (*NEEDED_BY_SCALING["longrope"], "rotary_factor", "rotary_attention_factor"),
}

ROTARY_NEEDS: dict[str, tuple[str, ...]] = {
    **{option.name: (SWITCH, "rotary_xpos") for option in _OF_ALL},
    **{
        option.name: tuple(f"rotary_scaling={name}" for name, read in _READ_BY_SCALING.items() if option.name in read)
        for option in _OF_SCALINGS
    },
    "rotary_xpos_scale_base": ("rotary_xpos",),
}


def _bare(name: str) -> str:
    """As a position node has it."""
    return name.removeprefix("rotary_")


ROTARY_OPTIONS = (
    Option("rotary", bool, False, _ON, SWITCH, area="positions"),
    *(replace(option, setting=option.name, area="positions") for option in (*_OF_ALL, *_OF_SCALINGS)),
)
"""Those of a block whose kind has the input `rotary`, beside the kind's own."""

ROTARY_ATTRIBUTES = (
    Option("dim", int, None, "features of a head that are rotated", least=2),
    *(replace(option, name=_bare(option.name)) for option in (*_OF_ALL[1:], *_OF_SCALINGS)),
    Option("xpos_scale_base", int, None, "of xPos; none: plain rotary", least=1, optional=True),
)
"""Of a position node."""


def attributes(settings: Mapping[str, Value], block: Any) -> dict[str, Value]:
    """What a node says, by the settings as a block of this dim_head has them."""
    dim, read = settings["rotary_emb_dim"], _READ_BY_SCALING.get(str(settings["rotary_scaling"]), ())
    said = {option: settings[option.name] for option in _OF_ALL[1:]}
    said |= {option: settings[option.name] if option.name in read else option.default for option in _OF_SCALINGS}
    return {
        "dim": _usual(block) if dim is None else dim,
        **{_bare(option.name): _number(option, value) for option, value in said.items()},
        "xpos_scale_base": settings["rotary_xpos_scale_base"] if settings["rotary_xpos"] else None,
    }


def asked_for(o: Any, block: Any) -> dict[str, Value]:
    """The settings by which a block of these options has the node with these attributes."""
    read = _READ_BY_SCALING.get(o.scaling, ())
    said = [*_OF_ALL[1:], *(option for option in _OF_SCALINGS if option.name in read)]
    of_xpos = {} if o.xpos_scale_base is None else {"rotary_xpos": True, "rotary_xpos_scale_base": o.xpos_scale_base}
    return {
        SWITCH: True,
        "rotary_emb_dim": None if o.dim == _usual(block) else o.dim,
        **{option.name: getattr(o, _bare(option.name)) for option in said},
        **of_xpos,
    }


def half(dim_head: int) -> int:
    """An even half of a head's features, at least two."""
    return max(2, dim_head // 2 // 2 * 2)


def _usual(block: Any) -> int:
    """How many features are rotated unless it is said."""
    return half(block.dim_head) if (shared := _shared_key(block)) is None else shared // 2 * 2


def _shared_key(block: Any) -> int | None:
    """Features of the key that heads share in latent attention, the only one that is rotated; None: there is none."""
    if getattr(block, "kv_rank", None) is None:
        return None
    return half(block.dim_head) if block.shared_key_dim is None else int(block.shared_key_dim)


def _number(option: Option, value: Any) -> Value:
    """A value as the graph has it: whole numbers as floats where the option is one."""
    if option.type is not float or value is None:
        return value
    return tuple(map(float, value)) if option.many else float(value)


def mismatch(o: Any, block: Any) -> tuple[str, str] | None:
    """What is wrong with a node's attributes at a block, and what to do about it."""
    of, most = ("head", block.dim_head) if (shared := _shared_key(block)) is None else ("shared key", shared)
    if o.dim > most or o.dim % 2 or o.dim < 2:
        problem = f"rotary positions of {o.dim} features do not fit a {of} of {most}"
        problem += " (shared_key_dim)" if of == "shared key" else ""
        return problem, f"rotary_emb_dim is even and at most {'dim_head' if shared is None else 'shared_key_dim'}"
    if o.scaling in BY_LENGTH and hasattr(block, "dim_context"):
        problem = f"rotary_scaling={o.scaling} goes by the length of one text, and cross-attention reads two"
        return problem, "leave rotary out of this block, or give it another rotary_scaling"
    if o.xpos_scale_base is not None and not getattr(block, "causal", False):
        problem = "rotary_xpos decays towards the past, and this attention is not causal"
        return problem, "make it causal, or leave rotary_xpos out for plain rotary positions"
    if o.xpos_scale_base is not None and bool(getattr(block, "num_mem_kv", False)):
        problem = "rotary_xpos decays with distance, and num_mem_kv's memory key-values have no position"
        return problem, "leave one of the two out"
    wrong = _wrong_scaling(o)
    return None if wrong is None else (wrong, "")


def _wrong_scaling(o: Any) -> str | None:
    read = _READ_BY_SCALING.get(o.scaling, ())
    for option in _OF_SCALINGS:
        value = getattr(o, _bare(option.name))
        if value is None and option.name in NEEDED_BY_SCALING.get(o.scaling, ()):
            return f"rotary_scaling={o.scaling} needs {option.name}"
        if value != option.default and option.name not in read:
            return f"{option.name} is set, but it needs {ROTARY_NEEDS[option.name][0]}"
        if option.many and value is not None and len(value) != o.dim // 2:
            return f"{option.name} has {len(value)} numbers, and {o.dim} rotated features have {o.dim // 2} frequencies"
    if o.scaling == "dynamic" and o.dim == 2:
        return "rotary_scaling=dynamic changes all frequencies but the first, and 2 rotated features have one"
    if o.scaling == "llama3" and o.low_freq_factor >= o.high_freq_factor:
        return f"rotary_low_freq_factor={o.low_freq_factor:g} must be below {o.high_freq_factor:g}, the high one"
    if o.scaling == "yarn" and o.beta_slow >= o.beta_fast:
        return f"rotary_beta_slow={o.beta_slow:g} must be below {o.beta_fast:g}, the fast one"
    return None


def note(o: Any) -> str:
    """A node in a few words."""
    parts = [f"rotary {o.dim}"]
    parts += ["interleaved"] if o.interleaved else []
    theta = int(o.theta) if o.theta == int(o.theta) else o.theta
    parts += [f"theta {in_digits(theta)}"] if o.theta != 10_000 else []
    parts += [o.scaling + ("" if o.factor is None else f" × {o.factor:g}")] if o.scaling else []
    parts += (
        [] if o.xpos_scale_base is None else ["xPos" + ("" if o.xpos_scale_base == 512 else f" {o.xpos_scale_base:g}")]
    )
    return ", ".join(parts)
