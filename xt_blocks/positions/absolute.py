"""Positions that are added to the embedded tokens: learned vectors or sinusoids."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..blocks.embedding import SMALL_STD, Embedding, unit_length

BASE = 10_000.0


class AbsolutePositions(nn.Module):
    """One learned vector per position (Gehring et al., arXiv:1705.03122).

    Args:
        max_seq_len: number of positions.
        dim: features of the embedding. The vectors start at about unit length, as token embeddings do.
        unit: normalise each vector to unit length, as l2norm_embed does with token embeddings.
        offset: rows of the table before that of the first position, as OPT and BART have two.
    """

    def __init__(self, max_seq_len: int, dim: int, unit: bool = False, offset: int = 0) -> None:
        super().__init__()
        self.unit, self.offset = unit, offset
        self.embedding = Embedding(offset + max_seq_len, dim, std=SMALL_STD if unit else dim**-0.5)

    def forward(self, positions: Tensor) -> Tensor:
        """`positions: (seq,) or (batch, seq)` int → (..., seq, dim)."""
        vectors: Tensor = self.embedding(positions + self.offset if self.offset else positions)
        return unit_length(vectors) if self.unit else vectors


class SinusoidalPositions(nn.Module):
    """Sines and cosines of the position (Vaswani et al., arXiv:1706.03762) times a learned scale.

    Feature i of the first half is the sine of position · 10000^(-2i/dim), that of the second half its cosine. They
    are computed in float32 or better whatever the module's dtype: in low precision, distant positions become equal.

    Args:
        dim: features of the embedding; even. The scale starts at dim^-0.5, so that the vectors have about unit length.

    Raises:
        ValueError: dim is odd.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"sinusoidal positions need an even number of features, not {dim}")
        self.dim = dim
        self.scale = nn.Parameter(torch.full((1,), dim**-0.5))

    def forward(self, positions: Tensor) -> Tensor:
        """`positions: (seq,) or (batch, seq)` int → (..., seq, dim)."""
        exact = torch.promote_types(self.scale.dtype, torch.float32)
        powers = torch.arange(0, self.dim, 2, device=positions.device, dtype=exact) / self.dim
        angles = positions.to(exact)[..., None] / BASE**powers
        waves = torch.cat((angles.sin(), angles.cos()), dim=-1)
        return (waves * self.scale.to(exact)).to(self.scale.dtype)


def input_positions(
    scheme: str | None, max_seq_len: int, dim: int, unit: bool = False, offset: int = 0
) -> nn.Module | None:
    """The module of the position scheme that the graph's input reads, "absolute" or "sinusoidal"; None for None."""
    if scheme is None:
        return None
    return SinusoidalPositions(dim) if scheme == "sinusoidal" else AbsolutePositions(max_seq_len, dim, unit, offset)
