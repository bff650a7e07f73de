"""A layer in which no token sees a later one, made to see all of them: once forwards and once backwards.

Vision Mamba (Zhu et al., arXiv:2401.09417) and Caduceus (Schiff et al., arXiv:2403.03234) read images and DNA so.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Bidirectional(nn.Module):
    """The sum of two layers, one of which reads each row's real tokens from the last to the first.

    Args:
        forwards, backwards: called with x and the inputs of their kind; padding is no step for them, wherever it is.
    """

    def __init__(self, forwards: nn.Module, backwards: nn.Module) -> None:
        super().__init__()
        self.forwards, self.backwards = forwards, backwards

    def forward(self, x: Tensor, **inputs: Any) -> Tensor:
        """
        Args:
            x: (batch, seq, dim)
            inputs: of the kind: `mask`, (batch, seq) bool, True = a real token, or None; `cache`, which is None.

        Returns:
            (batch, seq, dim)
        """
        reverse = dict(inputs)
        if reverse.get("mask") is not None:
            reverse["mask"] = reverse["mask"].flip(1)
        forwards: Tensor = self.forwards(x, **inputs)
        backwards: Tensor = self.backwards(x.flip(1), **reverse)
        return forwards + backwards.flip(1)
