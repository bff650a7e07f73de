"""Learned absolute positions, added to the embedded tokens (Gehring et al., arXiv:1705.03122)."""

from __future__ import annotations

from torch import Tensor, nn

from ..embedding import Embedding


class AbsolutePositions(nn.Module):
    """One learned vector a position.

    Args:
        max_seq_len: how many positions there are.
        dim: features of the stream. The vectors start with unit length, as token embeddings about do.
    """

    def __init__(self, max_seq_len: int, dim: int) -> None:
        super().__init__()
        self.embedding = Embedding(max_seq_len, dim, std=dim**-0.5)

    def forward(self, positions: Tensor) -> Tensor:
        """`positions: (seq,) or (batch, seq)` int → (..., seq, dim)."""
        return self.embedding(positions)
