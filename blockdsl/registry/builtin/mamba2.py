"""Mamba-2 `m`: a state space layer whose state decays by one number a head (arXiv:2405.21060)."""

from __future__ import annotations

from collections.abc import Collection
from math import gcd
from typing import Any

from ..kinds import Kind, Shape, Sizes
from ..options import Option, Value
from ..split import Cut, Split, shared_by, uneven
from ..state import State
from .words import biased, counted

_EXPAND, _DIM_HEAD = 2, 64


def _inner(o: Any) -> int:
    if o.heads is not None and o.dim_head is not None:
        return int(o.heads * o.dim_head)
    return int(o.dim * o.expand) if o.inner is None else int(o.inner)


def _derived(o: Any) -> dict[str, Value]:
    inner = _inner(o)
    if o.heads is not None:
        return {"inner": inner, "heads": o.heads, "dim_head": inner // o.heads}
    dim_head = gcd(inner, _DIM_HEAD) if o.dim_head is None else o.dim_head
    return {"inner": inner, "heads": inner // dim_head, "dim_head": dim_head}


def _check(o: Any) -> str | None:
    inner = _inner(o)
    if o.heads is not None and o.dim_head is not None:
        if o.inner not in (None, inner) or (o.expand != _EXPAND and int(o.dim * o.expand) != inner):
            said = f"inner={o.inner}" if o.inner is not None else f"expand={o.expand:g}"
            return f"heads={o.heads} of dim_head={o.dim_head} are {inner} features, and {said} says otherwise"
    elif o.inner is not None and o.expand != _EXPAND:
        return f"inner={o.inner} and expand={o.expand:g} are both set; give one"
    if inner < 1:
        return f"expand={o.expand:g} of dim={o.dim} leaves no features"
    for name, value in (("heads", o.heads), ("dim_head", o.dim_head)):
        if value is not None and inner % value:
            return f"{inner} features ({_said(o)}) do not divide by {name}={value}"
    heads = _derived(o)["heads"]
    if heads % o.groups:
        return f"{heads} heads do not divide by groups={o.groups}, of which each serves as many"
    if o.dt_min > o.dt_max:
        return f"dt_min={o.dt_min:g} is above dt_max={o.dt_max:g}"
    if o.dt_limit_max is not None and o.dt_limit_min > o.dt_limit_max:
        return f"dt_limit_min={o.dt_limit_min:g} is above dt_limit_max={o.dt_limit_max:g}"
    if not o.gate_first and o.gated_norm is None:
        return "gate_first=false is set, but gated_norm=none leaves no norm"
    if o.in_scales is not None and len(o.in_scales) != len(_PARTS):
        return f"in_scales are {len(_PARTS)} numbers, of {', '.join(_PARTS)}, not {len(o.in_scales)}"
    return None


_PARTS = ("z", "x", "B", "C", "dt")
"""What the first linear layer gives, in this order: the gate, values, what writes and what reads the state, steps."""


def _said(o: Any) -> str:
    return f"inner={o.inner}" if o.inner is not None else f"expand={o.expand:g} of dim={o.dim}"


def _widths(o: Any) -> tuple[int, int]:
    """Features that the first linear layer gives, and of those that the convolution mixes."""
    convolved = o.inner + 2 * o.groups * o.state
    return o.inner + convolved + o.heads, convolved


def _shapes(o: Any) -> dict[str, Shape]:
    given, convolved = _widths(o)
    shapes: dict[str, Shape] = {
        "A_log": (o.heads,),
        "dt_bias": (o.heads,),
        "D": (o.heads,),
        "to_in.weight": (given, o.dim),
        "conv.weight": (convolved, 1, o.kernel),
        "to_out.weight": (o.dim, o.inner),
    }
    if o.conv_bias:
        shapes["conv.bias"] = (convolved,)
    if o.bias:
        shapes |= {"to_in.bias": (given,), "to_out.bias": (o.dim,)}
    if o.gated_norm is not None:
        shapes["norm.weight"] = (o.inner,)
    return shapes


def _saved(o: Any, sizes: Sizes, inputs: Collection[str]) -> float:
    """On a CPU: chunks of a longer text are computed again, from their inputs, results and the states between them."""
    given, convolved = _widths(o)
    before, states = o.kernel - 1, o.inner * o.state
    if sizes.seq > o.chunk:
        chunks = -(-sizes.seq // o.chunk)
        return sizes.batch * (
            sizes.seq * (o.dim + given + 2 * o.inner)
            + (chunks + 1) * states
            + (before + (chunks - 1) * (before + min(before, o.chunk))) * convolved
        )
    norm = 0 if o.gated_norm is None else o.inner
    tokens = o.dim + 9 * o.inner + norm + 6 * (o.groups * o.state + o.heads) + 2 * sizes.seq * o.heads
    return sizes.batch * (sizes.seq * tokens + 2 * states + before * convolved)


def _flops(o: Any, sizes: Sizes) -> int:
    given, convolved = _widths(o)
    linear = o.dim * (given + o.inner) + convolved * o.kernel
    states = 2 * o.inner * o.state  # what enters the state, and what is read from it
    products = (sizes.seq // o.chunk) * o.chunk**2 + (sizes.seq % o.chunk) ** 2  # of tokens of a chunk
    within = (o.groups * o.state + o.inner) * (0 if sizes.seq == 1 else products)
    return int(2 * sizes.batch * (sizes.seq * (linear + states) + within))


def _state(o: Any) -> dict[str, State]:
    pieces = {"ssm": State((o.heads, o.dim_head, o.state), dtype="float32")}
    return pieces if o.kernel == 1 else {"conv": State((o.kernel - 1, _widths(o)[1])), **pieces}


def _split(o: Any, ranks: int) -> Split | str:
    """By heads; a group's B and C are on every rank that has heads of it."""
    if o.heads % ranks:
        return uneven("heads", o.heads, ranks)
    shared = shared_by(o.groups, ranks)
    if shared is None or (shared > 1 and o.gated_norm == "group"):
        return uneven("groups", o.groups, ranks)
    written = o.groups * o.state
    convolved = Cut(0, (o.inner, written, written), (1, shared, shared))
    made = Cut(0, (o.inner, o.inner, written, written, o.heads), (1, 1, shared, shared, 1))
    cuts = dict.fromkeys(("A_log", "dt_bias", "D", "norm.weight"), Cut())
    cuts |= {"to_in.weight": made, "to_in.bias": made, "conv.weight": convolved, "conv.bias": convolved}
    cuts["to_out.weight"] = Cut(axis=1)
    sizes = {"heads": o.heads // ranks, "dim_head": o.dim_head, "inner": None, "expand": _EXPAND}
    sums = 1 if o.gated_norm == "all" else 0
    return Split({**sizes, "groups": o.groups * shared // ranks}, cuts, once=("to_out.bias",), sums=sums)


def _steps(o: Any) -> list[tuple[str, str]]:
    given, _ = _widths(o)
    norm = {None: "", "all": "RMSNorm", "group": f"RMSNorm in {o.groups} groups"}[o.gated_norm]
    ends = ["SiLU gate", norm] if o.gate_first or not norm else [norm, "SiLU gate"]
    return [
        (f"linear {o.dim:,} → {given:,}{biased(o.bias)}", ""),
        *([] if o.in_scales is None else [(f"× {', '.join(f'{scale:.3g}' for scale in o.in_scales)}", "")]),
        (f"convolution over {counted(o.kernel, 'token')}{biased(o.conv_bias)}, SiLU", ""),
        (f"scan, state {o.heads} × {o.dim_head} × {o.state}", ""),
        *((end, "") for end in ends if end),
        (f"linear {o.inner:,} → {o.dim:,}{biased(o.bias)}", ""),
    ]


def _size(name: str, doc: str, default: int | None = None) -> Option:
    return Option(name, int, default, doc, setting=f"ssm_{name}", least=1, optional=default is None)


def _number(name: str, default: float | None, doc: str, least: float | None = None) -> Option:
    positive = 0 if least is None else None
    return Option(
        name, float, default, doc, setting=f"ssm_{name}", least=least, above=positive, optional=default is None
    )


MAMBA2 = Kind(
    name="m",
    title="Mamba-2",
    prefix="ssm",
    options=(
        _size("state", "numbers that a head keeps of each of its features, N (Mamba-2, arXiv:2405.21060)", 128),
        _size("heads", "heads, each with a decay of its own (arXiv:2405.21060); none: features / dim_head"),
        _size("dim_head", f"features of each head; none: features / heads, else {_DIM_HEAD} or what divides them"),
        _size("groups", "groups of heads that share what writes and what reads the state, B and C", 1),
        _number("expand", _EXPAND, "features of all heads as a multiple of dim"),
        _size("inner", "features of all heads as a number; none: expand times dim, or heads times dim_head"),
        _size("kernel", "tokens that the convolution before the scan reads, the token's own among them", 4),
        Option("conv_bias", bool, True, "the convolution with a bias", setting="ssm_conv_bias"),
        Option("bias", bool, False, "both linear layers with a bias", setting="ssm_bias"),
        Option(
            "gated_norm",
            str,
            "all",
            "RMSNorm of the gated output: over all features, or over those of each group (Nemotron-H, "
            "arXiv:2504.03624); none: without (Falcon-H1, arXiv:2507.22448)",
            setting="ssm_gated_norm",
            choices=("all", "group"),
            optional=True,
        ),
        Option(
            "gate_first",
            bool,
            True,
            "the gate is before the norm, as in Mamba-2; else after it",
            setting="ssm_gate_first",
        ),
        _number("gated_norm_eps", 1e-5, "what is added to the mean square in that norm"),
        _number("dt_min", 0.001, "least step that a head starts from (arXiv:2405.21060)"),
        _number("dt_max", 0.1, "largest step that a head starts from"),
        _number("dt_limit_min", 0.0, "no step is below this", least=0),
        _number("dt_limit_max", None, "no step is above this; none: any"),
        Option(
            "in_scales",
            float,
            None,
            "fixed factors of what the first linear layer gives: gate, x, B, C, steps (Falcon-H1, arXiv:2507.22448)",
            setting="ssm_in_scales",
            many=True,
            optional=True,
        ),
        _size("chunk", "tokens whose products are computed at once; changes nothing but speed and memory", 64),
    ),
    inputs=("mask", "cache"),
    shapes=_shapes,
    flops=_flops,
    saved=_saved,
    state=_state,
    module="xt_blocks.blocks.mamba2:Mamba2",
    causal_only=True,
    check=_check,
    derive=_derived,
    split=_split,
    steps=_steps,
    summary=lambda o: [f"{counted(o.heads, 'head')} × {o.dim_head:,}", f"state {o.state:,}"],
    also=("mamba2", "mamba_2", "ssm", "ssd", "state_space"),
    words={
        "groups": "{} groups of B and C",
        "kernel": "convolution over {} tokens",
        "conv_bias": "no bias of the convolution",
        "bias": "biases of the linear layers",
        "gated_norm": {"group": "gated RMSNorm by group", None: "no gated RMSNorm"},
        "gate_first": "gate after the norm",
        "gated_norm_eps": "gated norm eps {}",
        "dt_min": "first steps from {}",
        "dt_max": "first steps up to {}",
        "dt_limit_min": "steps of at least {}",
        "dt_limit_max": "steps of at most {}",
        "in_scales": "gate, x, B, C, steps × {}",
        "chunk": "chunks of {} tokens",
    },
    builtin=True,
)
