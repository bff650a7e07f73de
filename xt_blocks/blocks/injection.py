"""What a stack injects of its input into every branch."""

from __future__ import annotations

from torch import Tensor, nn

from .linear import apply


class Injection(nn.Module):
    """A linear layer of the stack's input, which each branch reads beside the stream (Bai et al., arXiv:1909.01377).

    Args:
        gate: it is multiplied by a number between 0 and 1 for each token, which a second linear layer makes.
    """

    def __init__(self, dim: int, gate: bool = False) -> None:
        super().__init__()
        self.project = nn.Linear(dim, dim, bias=False)
        self.gate = nn.Linear(dim, 1, bias=False) if gate else None

    def forward(self, x: Tensor) -> Tensor:
        """`x: (batch, seq, dim)`, what enters the stack → (batch, seq, dim)"""
        out = apply(self.project, x)
        return out if self.gate is None else out * apply(self.gate, x).sigmoid()
