"""Kimi delta attention `kda`: a gated delta net whose decay is by key feature."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..kinds import Kind, Shape, Sizes
from ..options import Option
from ..scan import delta_flops, products_saved, states_saved
from ..split import Cut, Split, uneven
from ..state import State
from .words import counted


def _shapes(o: Any) -> dict[str, Shape]:
    features = o.heads * o.dim_head
    return {
        "A_log": (o.heads,),
        "dt_bias": (features,),
        "to_qkv.weight": (3 * features, o.dim),
        "to_low_rank.weight": (2 * o.dim_head, o.dim),
        "to_beta.weight": (o.heads, o.dim),
        "to_decay.weight": (features, o.dim_head),
        "to_gate.weight": (features, o.dim_head),
        "conv.weight": (3 * features, 1, o.kernel),
        "norm.weight": (o.dim_head,),
        "to_out.weight": (o.dim, features),
    }


def _flops(o: Any, sizes: Sizes) -> int:
    features = o.heads * o.dim_head
    linear = o.dim * (4 * features + 2 * o.dim_head + o.heads) + features * (2 * o.dim_head + 3 * o.kernel)
    scan = o.heads * delta_flops(sizes.seq, o.dim_head, o.dim_head, by_channel=True)
    return sizes.batch * (2 * sizes.seq * linear + scan)


def _saved(o: Any, sizes: Sizes, inputs: Collection[str]) -> float:
    """On a CPU, by plain operations."""
    tokens = o.dim + 2 * o.dim_head + o.heads * (28 * o.dim_head + 5)
    products = products_saved(sizes.seq, o.dim_head, by_channel=True, lefts=2)
    states = 2 * states_saved(sizes.seq, o.dim_head, o.dim_head)
    return sizes.batch * (sizes.seq * tokens + o.heads * (products + states))


def _state(o: Any) -> dict[str, State]:
    return {
        "conv": State((o.kernel - 1, 3 * o.heads * o.dim_head)),
        "state": State((o.heads, o.dim_head, o.dim_head), dtype="float32"),
    }


def _split(o: Any, ranks: int) -> Split | str:
    if o.heads % ranks:
        return uneven("heads", o.heads, ranks)
    by_head, joint = Cut(), Cut(parts=(o.heads * o.dim_head,) * 3)
    cuts = dict.fromkeys(("A_log", "dt_bias", "to_beta.weight", "to_decay.weight", "to_gate.weight"), by_head)
    cuts |= {"to_qkv.weight": joint, "conv.weight": joint, "to_out.weight": Cut(axis=1)}
    return Split({"heads": o.heads // ranks}, cuts)


def _steps(o: Any) -> list[tuple[str, str]]:
    features = o.heads * o.dim_head
    return [
        (f"q, k, v {o.dim:,} → {3 * features:,}", ""),
        (f"convolution over {counted(o.kernel, 'token')}, SiLU", ""),
        ("unit q, k", ""),
        (f"decay and gate {o.dim:,} → {o.dim_head:,} → {features:,}", ""),
        (f"delta rule by channel, {o.heads} × {o.dim_head} × {o.dim_head}", ""),
        ("RMSNorm, sigmoid gate", ""),
        (f"out {features:,} → {o.dim:,}", ""),
    ]


KIMI_DELTA_ATTENTION = Kind(
    name="kda",
    title="Kimi delta attention",
    prefix="kda",
    options=(
        Option("heads", int, 8, "heads of queries, keys and values (arXiv:2510.26692)", setting="kda_heads", least=1),
        Option(
            "dim_head",
            int,
            64,
            "features of each head, and the rank of the layers of decay and gate",
            setting="kda_dim_head",
            least=1,
        ),
        Option("kernel", int, 4, "tokens of the convolution of q, k and v", setting="kda_kernel", least=1),
        Option(
            "out_norm_eps",
            float,
            1e-5,
            "what is added to the mean square of each head's output",
            setting="kda_out_norm_eps",
            above=0,
        ),
    ),
    inputs=("mask", "cache"),
    shapes=_shapes,
    flops=_flops,
    saved=_saved,
    state=_state,
    module="xt_blocks.blocks.kda:KimiDeltaAttention",
    causal_only=True,
    split=_split,
    steps=_steps,
    summary=lambda o: [f"{counted(o.heads, 'head')} × {o.dim_head:,}"],
    also=("kimi", "kimi_delta_attention", "kimi_linear"),
    words={
        "kernel": "convolution over {} tokens",
        "out_norm_eps": "output norm eps {}",
    },
    builtin=True,
)
