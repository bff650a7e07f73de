"""Short convolution `conv`: gates before and after a causal convolution over a few tokens (LFM2, arXiv:2511.23404)."""

from __future__ import annotations

from typing import Any

from ..kinds import Kind, Shape
from ..options import Option
from ..state import State


def _conv_shapes(o: Any) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        "to_in.weight": (3 * o.dim, o.dim),
        "conv.weight": (o.dim, 1, o.kernel),
        "to_out.weight": (o.dim, o.dim),
    }
    if o.bias:
        shapes |= {"to_in.bias": (3 * o.dim,), "conv.bias": (o.dim,), "to_out.bias": (o.dim,)}
    return shapes


def _conv_steps(o: Any) -> list[tuple[str, str]]:
    return [
        (f"linear {o.dim:,} → {3 * o.dim:,}", ""),
        ("gate", ""),
        (f"convolution over {o.kernel} token{'s' * (o.kernel > 1)}", ""),
        ("gate", ""),
        (f"linear {o.dim:,} → {o.dim:,}", ""),
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
        Option("bias", bool, False, "biases of the convolution and of its linear layers", setting="conv_bias"),
    ),
    inputs=("mask", "cache"),
    shapes=_conv_shapes,
    flops=lambda o, sizes: 2 * sizes.batch * sizes.seq * o.dim * (4 * o.dim + o.kernel),
    saved=lambda o, sizes, inputs: sizes.batch * o.dim * (7 * sizes.seq + o.kernel - 1),
    state=lambda o: {"conv": State((o.kernel - 1, o.dim))} if o.kernel > 1 else {},
    module="xt_blocks.blocks.conv:ShortConvolution",
    causal_only=True,
    split=lambda o, ranks: "it has as many hidden features as the stream, whatever its options say",
    steps=_conv_steps,
    also=("convolution", "shortconv", "lfm", "lfm2"),
    builtin=True,
)
