"""Short convolution `conv`: gates before and after a causal convolution over a few tokens (LFM2, arXiv:2511.23404)."""

from __future__ import annotations

from typing import Any

from ..kinds import Kind, Shape
from ..options import Option, Value
from ..split import Cut, Split, uneven
from ..state import State
from .words import biased, counted


def _conv_shapes(o: Any) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        "to_in.weight": (3 * o.inner, o.dim),
        "conv.weight": (o.inner, 1, o.kernel),
        "to_out.weight": (o.dim, o.inner),
    }
    if o.bias:
        shapes |= {"to_in.bias": (3 * o.inner,), "conv.bias": (o.inner,), "to_out.bias": (o.dim,)}
    return shapes


def _conv_derived(o: Any) -> dict[str, Value]:
    return {"inner": o.dim if o.inner is None else o.inner}


def _conv_split(o: Any, ranks: int) -> Split | str:
    if o.inner % ranks:
        return uneven("inner", o.inner, ranks)
    by_feature, joint = Cut(), Cut(parts=(o.inner,) * 3)
    cuts = {"to_in.weight": joint, "to_in.bias": joint, "conv.weight": by_feature, "conv.bias": by_feature}
    return Split({"inner": o.inner // ranks}, {**cuts, "to_out.weight": Cut(axis=1)}, once=("to_out.bias",))


def _conv_steps(o: Any) -> list[tuple[str, str]]:
    return [
        (f"linear {o.dim:,} → {3 * o.inner:,}{biased(o.bias)}", ""),
        ("gate", ""),
        (f"convolution over {counted(o.kernel, 'token')}{biased(o.bias)}", ""),
        ("gate", ""),
        (f"linear {o.inner:,} → {o.dim:,}{biased(o.bias)}", ""),
    ]


SHORT_CONVOLUTION = Kind(
    name="conv",
    title="short convolution",
    prefix="conv",
    options=(
        Option(
            "kernel",
            int,
            3,
            "tokens that the convolution reads, the token's own among them (LFM2, arXiv:2511.23404)",
            setting="conv_kernel",
            least=1,
        ),
        Option(
            "inner",
            int,
            None,
            "features of the convolution; none: dim",
            setting="conv_inner",
            least=1,
            optional=True,
        ),
        Option("bias", bool, False, "biases of the convolution and of its linear layers", setting="conv_bias"),
    ),
    inputs=("mask", "cache"),
    shapes=_conv_shapes,
    flops=lambda o, sizes: 2 * sizes.batch * sizes.seq * o.inner * (4 * o.dim + o.kernel),
    saved=lambda o, sizes, inputs: sizes.batch * (o.dim * sizes.seq + o.inner * (6 * sizes.seq + o.kernel - 1)),
    state=lambda o: {"conv": State((o.kernel - 1, o.inner), tail=True)} if o.kernel > 1 else {},
    module="xt_blocks.blocks.conv:ShortConvolution",
    causal_only=True,
    derive=_conv_derived,
    split=_conv_split,
    steps=_conv_steps,
    summary=lambda o: [f"{o.inner:,} features", f"over {counted(o.kernel, 'token')}"],
    also=("convolution", "shortconv", "lfm", "lfm2"),
    words={
        "bias": "biases in the short convolution",
    },
    builtin=True,
)
