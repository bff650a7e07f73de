"""What a block is handed to go on from earlier tokens: the contract between blocks and the runtime that keeps state.

A kind declares its pieces (`blockdsl.registry.state.State`); a layer reads and writes them by name, and knows neither
its node nor where decoding stands.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Piece(Protocol):
    """A piece of constant size."""

    def read(self) -> Tensor:
        """(batch, *shape): as it was written in the call before, zeros at first; not to be changed in place."""

    def write(self, new: Tensor) -> None:
        """`new: (batch, *shape)`, for the next call."""


class LayerState(Protocol):
    """The pieces of one node, which the layer is handed as `cache`."""

    @property
    def window(self) -> int | None:
        """How many tokens before a call's own `append` gives; None: all."""

    def read(self, name: str) -> Tensor:
        """A piece per row, or per token of the context; as `Piece.read`."""

    def write(self, name: str, new: Tensor) -> None:
        """The same piece, for the next call."""

    def append(self, **new: Tensor) -> tuple[Tensor, ...]:
        """Keep the pieces of new tokens, each (batch, ..., new, features); in this order, those of all that are kept.

        With a window these are the new ones and so many before, and with fixed shapes those of all places.
        """
