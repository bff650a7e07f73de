"""What rotary positions can be told, by the stack's settings or by a block that reads them.

Owns the declarations, and from settings to what a position node says. `xt_blocks.positions.rotary` computes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .options import Option, Value

SWITCH = "rotary_pos_emb"

_OF_A_HEAD = (
    Option(SWITCH, bool, False, "rotary positions in self-attention (arXiv:2104.09864)"),
    Option(
        "rotary_emb_dim",
        int,
        None,
        "features of each head that are rotated, an even number; none: half the head",
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
)

ROTARY_SETTINGS = (
    *_OF_A_HEAD,
    Option("rotary_xpos", bool, False, "rotary positions with a decay over distance, xPos (arXiv:2212.10554)"),
    Option("rotary_xpos_scale_base", int, 512, "distance over which xPos decays by a step", least=1),
)

ROTARY_NEEDS = {
    "rotary_emb_dim": (SWITCH, "rotary_xpos"),
    "rotary_theta": (SWITCH, "rotary_xpos"),
    "rotary_xpos_scale_base": ("rotary_xpos",),
}

ROTARY_OPTIONS = tuple(
    replace(option, name="rotary" if option.name == SWITCH else option.name, setting=option.name, area="positions")
    for option in _OF_A_HEAD
)
"""Those of a block whose kind has the input `rotary`, beside the kind's own."""

ROTARY_ATTRIBUTES = (
    Option("dim", int, None, "features of a head that are rotated", least=2),
    Option("theta", float, 10_000.0, "base of the frequencies", above=1),
    Option("xpos_scale_base", int, None, "of xPos; none: plain rotary", least=1, optional=True),
)
"""Of a position node."""


def attributes(settings: Mapping[str, Value], block: Any) -> dict[str, Value]:
    """What a node says, by the settings as a block of this dim_head has them."""
    dim, theta = settings["rotary_emb_dim"], settings["rotary_theta"]
    assert isinstance(theta, int | float)
    return {
        "dim": max(2, block.dim_head // 2 // 2 * 2) if dim is None else dim,
        "theta": float(theta),
        "xpos_scale_base": settings["rotary_xpos_scale_base"] if settings["rotary_xpos"] else None,
    }


def mismatch(o: Any, block: Any) -> tuple[str, str] | None:
    """What is wrong with a node's attributes at a block, and what to do about it."""
    if o.dim > block.dim_head or o.dim % 2 or o.dim < 2:
        problem = f"rotary positions of {o.dim} features do not fit a head of {block.dim_head}"
        return problem, "rotary_emb_dim is even and at most dim_head"
    if o.xpos_scale_base is not None and not getattr(block, "causal", False):
        problem = "rotary_xpos decays towards the past, and this attention is not causal"
        return problem, "make it causal, or leave rotary_xpos out for plain rotary positions"
    if o.xpos_scale_base is not None and bool(getattr(block, "num_mem_kv", False)):
        problem = "rotary_xpos decays with distance, and num_mem_kv's memory key-values have no position"
        return problem, "leave one of the two out"
    return None


def note(o: Any) -> str:
    """A node in a few words."""
    parts = [f"rotary {o.dim}"]
    parts += [f"theta {o.theta:g}"] if o.theta != 10_000 else []
    parts += ["xPos"] if o.xpos_scale_base is not None else []
    return ", ".join(parts)
