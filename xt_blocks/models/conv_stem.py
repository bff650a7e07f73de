"""The convolutional front end of a model over vectors: two convolutions, the second of which halves the length.

Whisper has it before its encoder (Radford et al., arXiv:2212.04356). Positions are added after it, by the model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.masks import check_mask


class ConvStem(nn.Module):
    """Two convolutions over time with kernels of 3 frames, GELU after each; the second has a stride of 2.

    Place i of the result is centred on frame 2i, so that of `frames` there are ⌈frames / 2⌉ places.

    Args:
        dim_in: features of a frame.
        dim: features of a place.
    """

    def __init__(self, dim_in: int, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(dim_in, dim, 3, padding=1)
        self.conv2 = nn.Conv1d(dim, dim, 3, stride=2, padding=1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`x: (batch, frames, dim_in)` → (batch, ⌈frames / 2⌉, dim).

        Args:
            mask: (batch, frames) bool, True = a real frame; padding is zeros to both convolutions, as the ends of a
                row are, so that a padded row has the values of the row alone.

        Raises:
            ValueError: the mask is of another shape or type, or a row's padding on the left is of an odd number of
                frames: the stride would take the other half of its frames.
        """
        check_mask("mask", mask, x)
        if mask is not None and not torch.compiler.is_compiling() and (mask.int().argmax(dim=1) % 2).any():
            raise ValueError("conv_stem takes every other frame: pad on the right, or an even number on the left")
        for conv in (self.conv1, self.conv2):
            x = x if mask is None else x * mask[..., None]
            x = F.gelu(conv(x.transpose(1, 2))).transpose(1, 2)
        return x

    @staticmethod
    def places(mask: Tensor | None) -> Tensor | None:
        """`mask: (batch, frames)` of the frames that places are centred on, (batch, ⌈frames / 2⌉)."""
        return None if mask is None else mask[:, ::2]
