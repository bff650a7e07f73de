"""A low-rank term of a block's first linear layer, for each use of a tied block its own: option, parameters, FLOPs.

With W shared, use i computes W·x + B_i·A_i·x: LoRA's form (Hu et al., arXiv:2106.09685), so that blocks which share
their parameters differ (Relaxed Recursive Transformers, arXiv:2410.20672; Zamba2, arXiv:2411.15242).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .options import Option


def lora_rank(prefix: str, what: str) -> Option:
    """The option, of a kind whose settings start with `prefix`; `what` the layer makes."""
    return Option(
        "lora_rank",
        int,
        None,
        f"each use of a tied block adds to {what} a low-rank term of its own, B·A·x (arXiv:2410.20672); none: nothing",
        setting=f"{prefix}_lora_rank",
        least=1,
        optional=True,
        by_use=True,
    )


def lora_shapes(o: Any, sizes: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Parameters of the term, for outputs in parts of these sizes, each with an A; none where it is off."""
    if o.lora_rank is None:
        return {}
    parts = sum(size > 0 for size in sizes)
    return {
        "lora.down_weight": (o.uses, parts * o.lora_rank, o.dim_in),
        "lora.up_weight": (o.uses, sum(sizes), o.lora_rank),
    }


def lora_products(o: Any, sizes: Sequence[int]) -> int:
    """Multiply-adds of a token in one use."""
    return sum(rows * features for _, rows, features in lora_shapes(o, sizes).values())


def lora_step(o: Any) -> list[tuple[str, str]]:
    """What a drawing says of it."""
    return [] if o.lora_rank is None else [(f"+ a term of rank {o.lora_rank} of its own", "")]


def lora_saved(o: Any, sizes: Sequence[int]) -> int:
    """Numbers saved of a token: what is between the two matrices."""
    return 0 if o.lora_rank is None else sum(size > 0 for size in sizes) * int(o.lora_rank)
