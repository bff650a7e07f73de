"""Tables of learned vectors."""

from __future__ import annotations

from torch import nn


class Embedding(nn.Embedding):
    """A table whose vectors are drawn normal with a standard deviation of its own, on `reset_parameters` too."""

    def __init__(self, rows: int, dim: int, std: float) -> None:
        self.std = std
        super().__init__(rows, dim)

    def reset_parameters(self) -> None:
        """Draw the vectors. On the meta device there is nothing to draw, and drawing would load torch's compiler."""
        if not self.weight.is_meta:
            nn.init.normal_(self.weight, std=self.std)
