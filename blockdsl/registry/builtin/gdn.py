"""Gated delta net `gdn`: linear attention whose state each token corrects and decays."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..kinds import Kind, Shape, Sizes
from ..options import Option, Value
from ..scan import delta_flops, products_saved, states_saved
from ..split import Cut, Split, shared_by, uneven
from ..state import State
from .words import counted


def _features(o: Any) -> tuple[int, int]:
    """Of all heads' keys, and of all heads' values."""
    return o.heads * o.dim_head, o.value_heads * o.value_dim_head


def _shapes(o: Any) -> dict[str, Shape]:
    keys, values = _features(o)
    return {
        "A_log": (o.value_heads,),
        "dt_bias": (o.value_heads,),
        "to_qkvg.weight": (2 * keys + 2 * values, o.dim),
        "to_beta_decay.weight": (2 * o.value_heads, o.dim),
        "conv.weight": (2 * keys + values, 1, o.kernel),
        "norm.weight": (o.value_dim_head,),
        "to_out.weight": (o.dim, values),
    }


def _flops(o: Any, sizes: Sizes) -> int:
    keys, values = _features(o)
    linear = o.dim * (2 * keys + 3 * values + 2 * o.value_heads) + (2 * keys + values) * o.kernel
    scan = o.value_heads * delta_flops(sizes.seq, o.dim_head, o.value_dim_head, by_channel=False)
    return sizes.batch * (2 * sizes.seq * linear + scan)


def _saved(o: Any, sizes: Sizes, inputs: Collection[str]) -> float:
    """On a CPU, by plain operations."""
    keys, values = _features(o)
    tokens = o.dim + 12 * keys + 2 * o.heads + 12 * values + o.value_heads * (3 * o.dim_head + 8)
    products = products_saved(sizes.seq, o.dim_head, by_channel=False, lefts=2)
    states = 2 * states_saved(sizes.seq, o.dim_head, o.value_dim_head)
    return sizes.batch * (sizes.seq * tokens + o.value_heads * (products + states))


def _state(o: Any) -> dict[str, State]:
    keys, values = _features(o)
    return {
        "conv": State((o.kernel - 1, 2 * keys + values)),
        "state": State((o.value_heads, o.dim_head, o.value_dim_head), dtype="float32"),
    }


def _derived(o: Any) -> dict[str, Value]:
    return {
        "value_heads": o.heads if o.value_heads is None else o.value_heads,
        "value_dim_head": o.dim_head if o.value_dim_head is None else o.value_dim_head,
    }


def _check(o: Any) -> str | None:
    if o.value_heads is not None and o.value_heads % o.heads:
        return f"value_heads={o.value_heads} is no multiple of heads={o.heads}, of which each serves as many"
    return None


def _split(o: Any, ranks: int) -> Split | str:
    """By heads of values; a head of queries and keys is on every rank that has values for it."""
    if o.value_heads % ranks:
        return uneven("value_heads", o.value_heads, ranks)
    if (shared := shared_by(o.heads, ranks)) is None:
        return uneven("heads", o.heads, ranks)
    keys, values = _features(o)
    cuts = {
        "A_log": Cut(),
        "dt_bias": Cut(),
        "to_qkvg.weight": Cut(0, (keys, keys, values, values), (shared, shared, 1, 1)),
        "to_beta_decay.weight": Cut(parts=(o.value_heads, o.value_heads)),
        "conv.weight": Cut(0, (keys, keys, values), (shared, shared, 1)),
        "to_out.weight": Cut(axis=1),
    }
    return Split({"heads": o.heads * shared // ranks, "value_heads": o.value_heads // ranks}, cuts)


def _steps(o: Any) -> list[tuple[str, str]]:
    keys, values = _features(o)
    return [
        (f"q, k, v, gate {o.dim:,} → {2 * keys + 2 * values:,}", ""),
        (f"convolution over {counted(o.kernel, 'token')}, SiLU", ""),
        ("unit q, k", ""),
        *([("overwrites up to twice", "")] if o.neg_eigval else []),
        (f"delta rule, {o.value_heads} × {o.dim_head} × {o.value_dim_head}", ""),
        ("RMSNorm, SiLU gate", ""),
        (f"out {values:,} → {o.dim:,}", ""),
    ]


GATED_DELTA_NET = Kind(
    name="gdn",
    title="gated delta net",
    prefix="gdn",
    options=(
        Option("heads", int, 8, "heads of queries and keys (arXiv:2412.06464)", setting="gdn_heads", least=1),
        Option("dim_head", int, 64, "features of each query and key", setting="gdn_dim_head", least=1),
        Option(
            "value_heads",
            int,
            None,
            "heads of values, value_heads / heads of which share a key (Qwen3-Next); none: heads",
            setting="gdn_value_heads",
            least=1,
            optional=True,
        ),
        Option(
            "value_dim_head",
            int,
            None,
            "features of each value head; none: dim_head",
            setting="gdn_value_dim_head",
            least=1,
            optional=True,
        ),
        Option("kernel", int, 4, "tokens of the convolution of q, k and v", setting="gdn_kernel", least=1),
        Option(
            "neg_eigval",
            bool,
            False,
            "a token may overwrite up to twice, so that eigenvalues may be negative (arXiv:2411.12537)",
            setting="gdn_neg_eigval",
        ),
        Option(
            "out_norm_eps",
            float,
            1e-5,
            "what is added to the mean square of each head's output",
            setting="gdn_out_norm_eps",
            above=0,
        ),
    ),
    inputs=("mask", "cache"),
    shapes=_shapes,
    flops=_flops,
    saved=_saved,
    state=_state,
    module="xt_blocks.blocks.gdn:GatedDeltaNet",
    causal_only=True,
    check=_check,
    derive=_derived,
    split=_split,
    steps=_steps,
    summary=lambda o: [f"{counted(o.value_heads, 'head')} × {o.dim_head:,} × {o.value_dim_head:,}"],
    also=("gated_delta_net", "gated_deltanet", "deltanet", "delta"),
    words={
        "kernel": "convolution over {} tokens",
        "neg_eigval": "negative eigenvalues",
        "out_norm_eps": "output norm eps {}",
    },
    builtin=True,
)
