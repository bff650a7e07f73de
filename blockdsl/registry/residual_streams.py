"""Several residual streams, which every block mixes (Zhu et al., arXiv:2409.19606): options, parameters, FLOPs.

A setting of the stack, which every block keeps among its options; no text says it of a single block. The input is
copied to every stream, with a learned vector added to each, and their sum is the output. A block reads a weighted sum
of the streams, mixes them, and adds its update to each with a weight of its own. All weights follow from the token.
They are constrained as in mHC (Xie et al., arXiv:2512.24880), or free, as in the first paper.
"""

from __future__ import annotations

from typing import Any

from .options import Option

RESIDUAL_STREAMS = Option(
    "num_residual_streams",
    int,
    1,
    "residual streams, which every block mixes: hyper-connections (arXiv:2409.19606)",
    setting="num_residual_streams",
    least=1,
)
STREAM_MIX = Option(
    "hyper_conn_mix",
    str,
    "sinkhorn",
    "how blocks mix streams: sinkhorn, doubly stochastic, with weights of branches within bounds (mHC, "
    "arXiv:2512.24880); free, with no bounds (arXiv:2409.19606); sum, each becomes the sum of all, which is what "
    "x-transformers 2.31 computes",
    setting="hyper_conn_mix",
    choices=("sinkhorn", "free", "sum"),
)
SINKHORN_ITERS = Option(
    "hyper_conn_sinkhorn_iters",
    int,
    5,
    "Sinkhorn's iterations, which make the mix of residual streams doubly stochastic",
    setting="hyper_conn_sinkhorn_iters",
    least=1,
)
STREAM_OPTIONS = (RESIDUAL_STREAMS, STREAM_MIX, SINKHORN_ITERS)


def streams_clash(o: Any) -> str | None:
    """What is wrong with a block's options, or None."""
    if o.num_residual_streams == 1:
        further = next((each for each in STREAM_OPTIONS if getattr(o, each.name) != each.default), None)
        return None if further is None else f"{further.name} is set, but it needs num_residual_streams of at least 2"
    for name, plain in (
        ("gate_residual", False),
        ("scale_residual", False),
        ("orthog_residual", False),
        ("shared_norm", False),
        ("scale_residual_constant", 1),
    ):
        if getattr(o, name) != plain:
            return f"{name} is set, but blocks of num_residual_streams={o.num_residual_streams} mix streams instead"
    if o.hyper_conn_sinkhorn_iters != SINKHORN_ITERS.default and o.hyper_conn_mix != "sinkhorn":
        return f"hyper_conn_sinkhorn_iters is set, but hyper_conn_mix={o.hyper_conn_mix} has no iterations"
    return None


def mixing_shapes(dim: int, streams: int) -> dict[str, tuple[int, ...]]:
    """The parameters of a block that mixes so many streams, by name; none for a single one.

    alpha: a row for each stream, of its weights in what the branch reads and in each new stream. beta: weights of the
    update in each.
    """
    if streams == 1:
        return {}
    return {
        "norm.weight": (dim,),
        "alpha": (streams, 1 + streams),
        "alpha_by_token": (dim, 1 + streams),
        "alpha_scale": (),
        "beta": (streams,),
        "beta_by_token": (dim,),
        "beta_scale": (),
    }


def mixing_flops(dim: int, streams: int, tokens: int) -> int:
    """Of the weights by token, and of the mix."""
    if streams == 1:
        return 0
    weights = streams * dim * (1 + streams) + streams * dim
    return 2 * tokens * (weights + streams * (1 + streams) * dim)


def mixing_saved(o: Any) -> int:
    """Numbers that a block saves of a token to mix its streams, beside these, by its completed options."""
    streams, dim = int(o.num_residual_streams), int(o.dim)
    if streams == 1:
        return 0
    weights = streams * (1 + streams)  # of what the branch reads, and of the new streams
    features = (streams + 1 + streams + 1) * dim  # normed streams, what is read and the new ones, the branch
    if o.hyper_conn_mix == "free":
        return features + 2 * streams + 2 * weights + 2 * streams
    bounded = features + 2 * streams + 2 * weights + streams + 3 * streams
    if o.hyper_conn_mix == "sum":
        return bounded
    return bounded + 2 * int(o.hyper_conn_sinkhorn_iters) * (streams**2 + streams)
