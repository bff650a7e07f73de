"""What a block keeps from one decoding step to the next, as its kind declares it. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import UserError
from .options import whole

ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int8": 1,
}


@dataclass(frozen=True)
class State:
    """One piece of a block's state.

        State((o.kernel - 1, o.dim))                                       # the last few tokens of each row
        State((o.dim,), dtype="float32")                                   # a running sum
        State((o.kv_heads, o.dim_head), per="token", window=o.window)      # a key for each token

    Args:
        shape: of one row, or of one token. A token axis stands before the last: keys of `(heads, features)` a token
            are `(batch, heads, tokens, features)`.
        per: "row" has a constant size, and is read and written at each step; "token" grows with the tokens; "context"
            is made once, of each token of the context.
        window: of what grows, how many tokens before a step's own are kept; None: all.
        dtype: "float32" (float64 in a model of that type) and so on, whatever the model's; None: that of what is
            written first.
        tail: of a piece per row, that it is the last tokens of what the layer reads, (tokens, features): ranks along cp
            have it of those before them.
        of: what the block reads of another (`options.Option.reads`) that keeps this piece in its place; the window says
            how much of it this block needs. Empty: it keeps the piece itself.
    """

    shape: tuple[int, ...]
    per: Literal["row", "token", "context"] = "row"
    window: int | None = None
    dtype: str | None = None
    of: str = ""
    tail: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(whole("a state's shape", size) for size in self.shape))
        if self.per not in ("row", "token", "context"):
            raise UserError(f"a state is per row, token or context, not per {self.per!r}")
        if self.dtype is not None:
            item_bytes(self.dtype)

    @property
    def numbers(self) -> int:
        """Of one row or token."""
        return math.prod(self.shape)


def item_bytes(dtype: Any) -> int:
    """Bytes a number of a torch dtype, given as the dtype or its name."""
    name = str(dtype).removeprefix("torch.")
    if name not in ITEM_BYTES:
        raise UserError(f"unknown dtype {dtype!r}; known: {', '.join(ITEM_BYTES)}")
    return ITEM_BYTES[name]
