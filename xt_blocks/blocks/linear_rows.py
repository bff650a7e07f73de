"""Rows of a linear layer as a module: queries, keys and values are one layer here, three elsewhere.

`LinearRows` reads some rows. `LinearParts` is what the layer becomes once another module replaces one of the three, and
what it is where only some of them have a bias.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import apply


class LinearRows(nn.Module):
    """Some rows of a linear layer, which has their parameters; writing into `weight` writes there.

    Args:
        layer: the whole linear layer.
        rows: which of its outputs.
    """

    def __init__(self, layer: nn.Module, rows: slice) -> None:
        super().__init__()
        self.trained = True
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
        raise AttributeError(
            "the rows of a joint linear layer have no parameters of their own: take the joint layer's; requires_grad_ "
            "says whether a layer made of the rows is trained"
        )

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

    def requires_grad_(self, requires_grad: bool = True) -> LinearRows:
        """Whether a layer made of these rows is trained; the whole layer is trained or not as it was."""
        self.trained = requires_grad
        return self

    def linear(self) -> nn.Linear:
        """A layer of its own with a copy of these rows."""
        layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        for name in ("weight", "bias"):
            if (rows := getattr(self, name)) is not None:
                trained = self._whole[0].get_parameter(name).requires_grad and self.trained
                setattr(layer, name, nn.Parameter(rows.detach().clone(), requires_grad=trained))
        return layer


class LinearParts(nn.Module):
    """Layers that read the same input, their outputs one after another."""

    def __init__(self, parts: Iterable[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def replace(self, index: int, part: nn.Module) -> None:
        """Put a module in a part's place. `LinearRows` inside of it, which were read from here, become layers."""
        held = nn.ModuleList([part])
        for module in [*held.modules()]:
            for name, child in [*module.named_children()]:
                if isinstance(child, LinearRows):
                    setattr(module, name, child.linear())
        self.parts[index] = held[0]

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., features)` → (..., outputs)."""
        return torch.cat([apply(part, x) for part in self.parts], dim=-1)
