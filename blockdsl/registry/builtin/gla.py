"""Gated linear attention `gla`: a state to which tokens add, and which decays as they say; or as fixed, retention."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..kinds import Kind, Shape, Sizes
from ..options import Option, Value
from ..scan import linear_attention_flops, products_saved, states_saved
from ..split import Cut, Split, uneven
from ..state import State
from .words import counted

_RANK, _TEMPERATURE = 16, 16


def _shapes(o: Any) -> dict[str, Shape]:
    keys, values = o.heads * o.dim_head, o.heads * o.value_dim_head
    shapes: dict[str, Shape] = {
        "to_qkvg.weight": (2 * keys + 2 * values, o.dim),
        "norm.weight": (o.value_dim_head,),
        "to_out.weight": (o.dim, values),
    }
    if o.decay == "channel":
        shapes |= {"to_low_rank.weight": (o.decay_rank, o.dim)}
        shapes |= {"to_decay.weight": (keys, o.decay_rank), "to_decay.bias": (keys,)}
    elif o.decay == "head":
        shapes |= {"to_decay.weight": (o.heads, o.dim), "to_decay.bias": (o.heads,)}
    return shapes


def _flops(o: Any, sizes: Sizes) -> int:
    keys, values = o.heads * o.dim_head, o.heads * o.value_dim_head
    decay = {"channel": (o.dim + keys) * o.decay_rank, "head": o.dim * o.heads, "fixed": 0}[o.decay]
    scan = o.heads * linear_attention_flops(sizes.seq, o.dim_head, o.value_dim_head, o.decay == "channel")
    return sizes.batch * (2 * sizes.seq * (o.dim * (2 * keys + 3 * values) + decay) + scan)


def _saved(o: Any, sizes: Sizes, inputs: Collection[str]) -> float:
    """On a CPU, by plain operations; a fixed decay has no gradient."""
    keys, numbers = {"channel": (10, 1), "head": (8, 5), "fixed": (6, 3)}[o.decay]
    rank = o.decay_rank if o.decay == "channel" else 0
    tokens = o.dim + rank + o.heads * (keys * o.dim_head + 8 * o.value_dim_head + numbers)
    products = products_saved(sizes.seq, o.dim_head, o.decay == "channel", lefts=0 if o.decay == "fixed" else 1)
    states = (1 if o.decay == "fixed" else 2) * states_saved(sizes.seq, o.dim_head, o.value_dim_head)
    return sizes.batch * (sizes.seq * tokens + o.heads * (products + states))


def _derived(o: Any) -> dict[str, Value]:
    return {"value_dim_head": o.dim_head if o.value_dim_head is None else o.value_dim_head}


def _check(o: Any) -> str | None:
    if o.decay != "channel" and o.decay_rank != _RANK:
        return f"decay_rank={o.decay_rank} is set, but decay={o.decay} has no layer of low rank"
    if o.decay == "fixed" and o.decay_temperature != _TEMPERATURE:
        return f"decay_temperature={o.decay_temperature:g} is set, but the decay is fixed"
    return None


def _split(o: Any, ranks: int) -> Split | str:
    if o.heads % ranks:
        return uneven("heads", o.heads, ranks)
    keys, values = o.heads * o.dim_head, o.heads * o.value_dim_head
    cuts = {
        "to_qkvg.weight": Cut(parts=(keys, keys, values, values)),
        "to_decay.weight": Cut(),
        "to_decay.bias": Cut(),
        "to_out.weight": Cut(axis=1),
    }
    return Split({"heads": o.heads // ranks}, cuts)


def _steps(o: Any) -> list[tuple[str, str]]:
    keys, values = o.heads * o.dim_head, o.heads * o.value_dim_head
    name = "retention" if o.decay == "fixed" else "linear attention"
    decay = {
        "channel": [f"decays {o.dim:,} → {o.decay_rank} → {keys:,}, logs / {o.decay_temperature:g}"],
        "head": [f"decays {o.dim:,} → {o.heads}, logs / {o.decay_temperature:g}"],
        "fixed": [],
    }[o.decay]
    return [
        (f"q, k, v, gate {o.dim:,} → {2 * keys + 2 * values:,}", ""),
        *((step, "") for step in decay),
        (f"{name}, {o.heads} × {o.dim_head} × {o.value_dim_head}", ""),
        ("RMSNorm, SiLU gate", ""),
        (f"out {values:,} → {o.dim:,}", ""),
    ]


GATED_LINEAR_ATTENTION = Kind(
    name="gla",
    title="gated linear attention",
    prefix="gla",
    options=(
        Option("heads", int, 8, "heads (arXiv:2312.06635)", setting="gla_heads", least=1),
        Option("dim_head", int, 64, "features of each query and key", setting="gla_dim_head", least=1),
        Option(
            "value_dim_head",
            int,
            None,
            "features of each value; none: dim_head",
            setting="gla_value_dim_head",
            least=1,
            optional=True,
        ),
        Option(
            "decay",
            str,
            "channel",
            "what a token's decay is for: each key feature, each head, or fixed by head, 1 - 2**(-5 - head), which is "
            "retention (arXiv:2307.08621)",
            setting="gla_decay",
            choices=("channel", "head", "fixed"),
        ),
        Option("decay_rank", int, _RANK, "rank of the layer of decays by channel", setting="gla_decay_rank", least=1),
        Option(
            "decay_temperature",
            float,
            _TEMPERATURE,
            "what log decays are divided by; a higher one forgets more slowly",
            setting="gla_decay_temperature",
            above=0,
        ),
        Option(
            "out_norm_eps",
            float,
            1e-5,
            "what is added to the mean square of each head's output",
            setting="gla_out_norm_eps",
            above=0,
        ),
    ),
    inputs=("mask", "cache"),
    shapes=_shapes,
    flops=_flops,
    saved=_saved,
    state=lambda o: {"state": State((o.heads, o.dim_head, o.value_dim_head), dtype="float32")},
    module="xt_blocks.blocks.gla:GatedLinearAttention",
    causal_only=True,
    check=_check,
    derive=_derived,
    split=_split,
    steps=_steps,
    summary=lambda o: [f"{counted(o.heads, 'head')} × {o.dim_head:,} × {o.value_dim_head:,}"],
    also=("retention", "retnet", "gated_linear_attention", "linear_attention"),
    words={
        "decay": {"head": "decay by head", "fixed": "fixed decay by head (retention)"},
        "decay_rank": "decay of rank {}",
        "decay_temperature": "decay temperature {}",
        "out_norm_eps": "output norm eps {}",
    },
    builtin=True,
)
