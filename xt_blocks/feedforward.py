"""The feedforward block: two linear maps with an activation between them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .keywords import names_nearest


class FeedForward(nn.Module):
    """Position-wise feedforward.

    Args:
        dim: features of the stream.
        mult: hidden features as a multiple of dim.
        glu: the activation gates a second set of hidden features (Shazeer, arXiv:2002.05202).
        swish: SiLU in place of GELU (arXiv:1710.05941).
        relu_squared: ReLU squared in place of GELU (Primer, arXiv:2109.08668).
        no_bias: linear maps without a bias (PaLM, arXiv:2204.02311).
        dropout: of the hidden features.

    Raises:
        ValueError: both swish and relu_squared.
    """

    @names_nearest
    def __init__(
        self,
        dim: int,
        mult: float = 4,
        glu: bool = False,
        swish: bool = False,
        relu_squared: bool = False,
        no_bias: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if swish and relu_squared:
            raise ValueError("swish and relu_squared are both set; a feedforward has one activation")
        inner = int(dim * mult)
        self.glu = glu
        self.activation = "relu_squared" if relu_squared else "silu" if swish else "gelu"
        self.to_hidden = nn.Linear(dim, inner * (2 if glu else 1), bias=not no_bias)
        self.dropout = nn.Dropout(dropout)
        self.to_out = nn.Linear(inner, dim, bias=not no_bias)

    def forward(self, x: Tensor) -> Tensor:
        """`x: (batch, seq, dim)` → (batch, seq, dim)."""
        hidden = self.to_hidden(x)
        if self.glu:
            hidden, gate = hidden.chunk(2, dim=-1)
            hidden = hidden * self._activate(gate)
        else:
            hidden = self._activate(hidden)
        return self.to_out(self.dropout(hidden))

    def _activate(self, x: Tensor) -> Tensor:
        if self.activation == "relu_squared":
            return F.relu(x).square()
        return F.silu(x) if self.activation == "silu" else F.gelu(x)
