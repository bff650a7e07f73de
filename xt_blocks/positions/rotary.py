"""Rotary positions (Su et al., arXiv:2104.09864): queries and keys turned by angles that grow with position.

Only the difference of two positions reaches a score. Angles are computed in float32 whatever the module's type:
rounded to a low precision, far positions would fall together.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BASE = 10_000.0


class Rotation(NamedTuple):
    """The rotation of each token; feature i turns with feature i + dim/2.

    Attributes:
        cos, sin: (seq, dim / 2) float32
    """

    cos: Tensor
    sin: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Rotate the first `dim` features of `x: (batch, heads, seq, features)`; the others stay."""
        half = self.cos.shape[-1]
        first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        # a product with float32 is float32, or float64: low-precision features are not rounded in between
        turned = torch.cat((first * self.cos - second * self.sin, second * self.cos + first * self.sin), dim=-1)
        return torch.cat((turned.to(x.dtype), rest), dim=-1)


def rotation(positions: Tensor, dim: int) -> Rotation:
    """The rotation of tokens at these positions.

    Args:
        positions: (seq,)
        dim: how many features of a head are rotated; even.
    """
    powers = torch.arange(0, dim, 2, device=positions.device, dtype=torch.float32) / dim
    angles = positions.to(torch.float32)[:, None] / BASE**powers
    return Rotation(angles.cos(), angles.sin())
