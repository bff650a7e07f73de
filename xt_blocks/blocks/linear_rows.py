"""Rows of a linear layer as a module to read: queries, keys and values are one layer here, three elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class LinearRows(nn.Module):
    """Some rows of a linear layer, which has their parameters; writing into `weight` writes there.

    Args:
        layer: the whole linear layer.
        rows: which of its outputs.
    """

    def __init__(self, layer: nn.Module, rows: slice) -> None:
        super().__init__()
        self._whole = (layer, rows)  # in a tuple, so that its parameters are not this module's too

    @property
    def weight(self) -> Tensor:
        """(outputs, features), a view."""
        layer, rows = self._whole
        return layer.weight[rows]  # type: ignore[index]

    @property
    def bias(self) -> Tensor | None:
        """(outputs,), a view; None: the layer has none."""
        layer, rows = self._whole
        return None if layer.bias is None else layer.bias[rows]  # type: ignore[index]

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Refused: none are its own, and nothing would happen to rows that are frozen or trained alone."""
        raise AttributeError("the rows of a joint linear layer have no parameters of their own: take the joint layer's")

    @property
    def in_features(self) -> int:
        """Features of its input."""
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        """Features of its output."""
        return self.weight.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., features)` → (..., outputs)."""
        return F.linear(x, self.weight, self.bias)
