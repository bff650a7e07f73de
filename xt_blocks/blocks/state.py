"""The state that a block reads and writes to continue from earlier tokens: the contract of blocks with the runtime.

A kind declares its pieces (`blockdsl.registry.state.State`); a layer reads and writes them by name, and knows neither
its node nor the position in the sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from .real_tokens import RealTokens


def in_type_of(like: Tensor, kept: Tensor) -> Tensor:
    """What a cache keeps in this step's type: a prompt may run under autocast, and a step without."""
    return kept if kept.dtype == like.dtype else kept.to(like.dtype)


class Tail(Protocol):
    """The last tokens of what came before."""

    def before(self, x: Tensor) -> Tensor:
        """`x: (batch, seq, dim)` with these tokens in front, (batch, tail + seq, dim); its last ones are kept."""


class LayerState(Protocol):
    """The pieces of one node; the layer gets it as `cache`."""

    @property
    def window(self) -> int | None:
        """How many tokens before the new ones `append` returns; None: all."""

    def read(self, name: str) -> Tensor:
        """A piece per row, (batch, *shape), or per token of the context: as written in the previous call, zeros at
        first; not to be changed in place."""

    def write(self, name: str, new: Tensor) -> None:
        """The same piece, for the next call."""

    def tail(self, name: str, x: Tensor, real: RealTokens) -> Tensor:
        """A piece of the last real tokens before `x: (batch, seq, features)`, (batch, n, features), as `read` gives it;
        the last of those and x are kept. Ranks that have other tokens of the rows call this at once."""

    def append(self, **new: Tensor) -> tuple[Tensor, ...]:
        """Keep pieces of new tokens, (batch, ..., new, features); returns those of all kept tokens, in this order.

        With a window those are the new ones and `window` before them; with fixed shapes those of all positions.
        """
