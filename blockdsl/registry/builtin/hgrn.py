"""HGRN2 `hgrn`: linear attention whose keys are what its forget gates leave (a kind's name ends in no digit)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..kinds import Kind, Shape, Sizes
from ..options import Option, Value
from ..scan import linear_attention_flops, products_saved, states_saved
from ..split import Cut, Split, uneven
from ..state import State
from .words import counted


def _shapes(o: Any) -> dict[str, Shape]:
    keys, values = o.heads * o.dim_head, o.heads * o.value_dim_head
    return {
        "to_qfv.weight": (2 * keys + values, o.dim),
        "norm.weight": (values,),
        "to_out.weight": (o.dim, values),
    }


def _flops(o: Any, sizes: Sizes) -> int:
    linear = o.dim * 2 * o.heads * (o.dim_head + o.value_dim_head)
    scan = o.heads * linear_attention_flops(sizes.seq, o.dim_head, o.value_dim_head, by_channel=True)
    return sizes.batch * (2 * sizes.seq * linear + scan)


def _saved(o: Any, sizes: Sizes, inputs: Collection[str]) -> float:
    """On a CPU, by plain operations."""
    tokens = o.dim + 1 + o.heads * ((10 + bool(o.lower_bound)) * o.dim_head + 5 * o.value_dim_head)
    products = products_saved(sizes.seq, o.dim_head, by_channel=True)
    states = 2 * states_saved(sizes.seq, o.dim_head, o.value_dim_head)
    return sizes.batch * (sizes.seq * tokens + o.heads * (products + states))


def _derived(o: Any) -> dict[str, Value]:
    return {"value_dim_head": o.dim_head if o.value_dim_head is None else o.value_dim_head}


def _split(o: Any, ranks: int) -> Split | str:
    if o.heads % ranks:
        return uneven("heads", o.heads, ranks)
    keys, values = o.heads * o.dim_head, o.heads * o.value_dim_head
    cuts = {"to_qfv.weight": Cut(parts=(keys, keys, values)), "norm.weight": Cut(), "to_out.weight": Cut(axis=1)}
    return Split({"heads": o.heads // ranks}, cuts, sums=1)


def _steps(o: Any) -> list[tuple[str, str]]:
    keys, values = o.heads * o.dim_head, o.heads * o.value_dim_head
    return [
        (f"q, forget gate, v {o.dim:,} → {2 * keys + values:,}", ""),
        *([(f"forget gates from {o.lower_bound:g} up", "")] if o.lower_bound else []),
        (f"state that forgets, {o.heads} × {o.dim_head} × {o.value_dim_head}", ""),
        ("RMSNorm", ""),
        (f"out {values:,} → {o.dim:,}", ""),
    ]


HGRN = Kind(
    name="hgrn",
    title="HGRN2",
    prefix="hgrn",
    options=(
        Option("heads", int, 8, "heads (arXiv:2404.07904)", setting="hgrn_heads", least=1),
        Option("dim_head", int, 64, "forget gates of each head", setting="hgrn_dim_head", least=1),
        Option(
            "value_dim_head",
            int,
            None,
            "features of each value; none: dim_head",
            setting="hgrn_value_dim_head",
            least=1,
            optional=True,
        ),
        Option(
            "lower_bound",
            float,
            0.0,
            "the least that forget gates keep; higher in later blocks (arXiv:2311.04823)",
            setting="hgrn_lower_bound",
            least=0,
            below=1,
        ),
        Option(
            "out_norm_eps",
            float,
            1e-5,
            "what is added to the mean square of the output",
            setting="hgrn_out_norm_eps",
            above=0,
        ),
    ),
    inputs=("mask", "cache"),
    shapes=_shapes,
    flops=_flops,
    saved=_saved,
    state=lambda o: {"state": State((o.heads, o.dim_head, o.value_dim_head), dtype="float32")},
    module="xt_blocks.blocks.hgrn:HGRN2",
    causal_only=True,
    derive=_derived,
    split=_split,
    steps=_steps,
    summary=lambda o: [f"{counted(o.heads, 'head')} × {o.dim_head:,} × {o.value_dim_head:,}"],
    also=("hgrn2",),
    words={
        "lower_bound": "forget gates of at least {}",
        "out_norm_eps": "output norm eps {}",
    },
    builtin=True,
)
