"""Mamba-1 `mamba`: a state space layer in which each feature keeps a state of its own (arXiv:2312.00752)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..kinds import Kind, Shape, Sizes
from ..options import Option, Value
from ..split import Cut, Split, uneven
from ..state import State
from .words import biased, counted

_EXPAND = 2


def _inner(o: Any) -> int:
    return int(o.dim * o.expand) if o.inner is None else int(o.inner)


def _derived(o: Any) -> dict[str, Value]:
    return {"inner": _inner(o), "dt_rank": -(-o.dim // 16) if o.dt_rank is None else o.dt_rank}


def _check(o: Any) -> str | None:
    if o.inner is not None and o.expand != _EXPAND:
        return f"inner={o.inner} and expand={o.expand:g} are both set; give one"
    if _inner(o) < 1:
        return f"expand={o.expand:g} of dim={o.dim} leaves no features"
    if o.dt_min > o.dt_max:
        return f"dt_min={o.dt_min:g} is above dt_max={o.dt_max:g}"
    return None


def _shapes(o: Any) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        "A_log": (o.inner, o.state),
        "D": (o.inner,),
        "to_in.weight": (2 * o.inner, o.dim),
        "conv.weight": (o.inner, 1, o.kernel),
        "to_scan.weight": (o.dt_rank + 2 * o.state, o.inner),
        "to_dt.weight": (o.inner, o.dt_rank),
        "to_dt.bias": (o.inner,),
        "to_out.weight": (o.dim, o.inner),
    }
    if o.conv_bias:
        shapes["conv.bias"] = (o.inner,)
    if o.bias:
        shapes |= {"to_in.bias": (2 * o.inner,), "to_out.bias": (o.dim,)}
    if o.rmsnorm == "gain":
        shapes |= {"dt_norm.weight": (o.dt_rank,), "b_norm.weight": (o.state,), "c_norm.weight": (o.state,)}
    return shapes


def _flops(o: Any, sizes: Sizes) -> int:
    linear = 3 * o.dim + o.kernel + 2 * o.dt_rank + 2 * o.state
    scan = 3 * o.state  # what enters the state, its decay, and what is read from it
    return 2 * sizes.batch * sizes.seq * int(o.inner) * (linear + scan)


_CHUNK = 16
"""Tokens of the scan from one state that it saves to the next; `xt_blocks.kernels.scans.selective` says how many."""


def _saved(o: Any, sizes: Sizes, inputs: Collection[str]) -> float:
    tokens = sizes.batch * sizes.seq
    states = sizes.batch * (1 + -(-sizes.seq // _CHUNK)) * o.inner * o.state + 2 * o.inner * o.state  # decays, twice
    made = o.dt_rank + 2 * o.state  # of what the scan reads; normed, there is what is normed and what is made of it
    return tokens * (o.dim + 9 * o.inner + made + (made + 3) * bool(o.rmsnorm)) + states


def _state(o: Any) -> dict[str, State]:
    pieces = {"ssm": State((o.state, o.inner), dtype="float32")}
    return pieces if o.kernel == 1 else {"conv": State((o.kernel - 1, o.inner)), **pieces}


def _split(o: Any, ranks: int) -> Split | str:
    """By features of the scan; steps, B and C are sums over those of all ranks."""
    if o.inner % ranks:
        return uneven("inner", o.inner, ranks)
    by_feature, joint = Cut(), Cut(parts=(o.inner, o.inner))
    names = ("A_log", "D", "conv.weight", "conv.bias", "to_dt.weight", "to_dt.bias")
    cuts = {**dict.fromkeys(names, by_feature), "to_in.weight": joint, "to_in.bias": joint}
    cuts |= dict.fromkeys(("to_scan.weight", "to_out.weight"), Cut(axis=1))
    options: dict[str, Value] = {"inner": o.inner // ranks, "expand": _EXPAND}
    return Split(options, cuts, once=("to_out.bias",), sums=o.dt_rank + 2 * o.state)


def _steps(o: Any) -> list[tuple[str, str]]:
    return [
        (f"linear {o.dim:,} → {2 * o.inner:,}{biased(o.bias)}", ""),
        (f"convolution over {counted(o.kernel, 'token')}{biased(o.conv_bias)}, SiLU", ""),
        (f"steps of rank {o.dt_rank}, B, C {o.inner:,} → {o.dt_rank + 2 * o.state:,}", ""),
        *([(f"RMSNorm of steps, B, C{', with gains' * (o.rmsnorm == 'gain')}", "")] if o.rmsnorm else []),
        (f"selective scan, state {o.inner:,} × {o.state}", ""),
        ("SiLU gate", ""),
        (f"linear {o.inner:,} → {o.dim:,}{biased(o.bias)}", ""),
    ]


def _size(name: str, doc: str, default: int | None = None) -> Option:
    return Option(name, int, default, doc, setting=f"mamba_{name}", least=1, optional=default is None)


def _number(name: str, default: float, doc: str) -> Option:
    return Option(name, float, default, doc, setting=f"mamba_{name}", above=0)


MAMBA = Kind(
    name="mamba",
    title="Mamba",
    prefix="mamba",
    options=(
        _size("state", "numbers that are kept of each feature, N (Mamba, arXiv:2312.00752)", 16),
        _number("expand", _EXPAND, "features of the scan as a multiple of dim"),
        _size("inner", "features of the scan as a number; none: expand times dim"),
        _size("kernel", "tokens that the convolution before the scan reads, the token's own among them", 4),
        _size("dt_rank", "rank of the linear layer to each feature's step; none: dim / 16, rounded up"),
        Option("conv_bias", bool, True, "the convolution with a bias", setting="mamba_conv_bias"),
        Option("bias", bool, False, "the first and the last linear layer with a bias", setting="mamba_bias"),
        Option(
            "rmsnorm",
            str,
            None,
            "RMSNorm of steps, B and C: plain (Falcon-Mamba, arXiv:2410.05355) or with learned gains (Jamba, "
            "arXiv:2403.19887); none: without",
            setting="mamba_rmsnorm",
            choices=("plain", "gain"),
            optional=True,
        ),
        _number("rmsnorm_eps", 1e-6, "what is added to the mean square in those norms"),
        _number("dt_min", 0.001, "least step that a feature starts from (arXiv:2312.00752)"),
        _number("dt_max", 0.1, "largest step that a feature starts from"),
    ),
    inputs=("mask", "cache"),
    shapes=_shapes,
    flops=_flops,
    saved=_saved,
    state=_state,
    module="xt_blocks.blocks.mamba:Mamba",
    causal_only=True,
    check=_check,
    derive=_derived,
    split=_split,
    steps=_steps,
    summary=lambda o: [f"{o.inner:,} features", f"state {o.state:,}"],
    also=("mamba1", "mamba_1", "s6", "selective_scan"),
    words={
        "kernel": "convolution over {} tokens",
        "dt_rank": "steps of rank {}",
        "conv_bias": "no bias of the convolution",
        "bias": "biases of the linear layers",
        "rmsnorm": {"plain": "RMSNorm of steps, B, C", "gain": "RMSNorm of steps, B, C, with gains"},
        "rmsnorm_eps": "eps of that norm {}",
        "dt_min": "first steps from {}",
        "dt_max": "first steps up to {}",
    },
    builtin=True,
)
