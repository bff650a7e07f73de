"""The short convolution block of LFM2 (arXiv:2511.23404)."""

from __future__ import annotations

from torch import Tensor, nn

from .causal_conv import CausalConv
from .linear import apply
from .real_tokens import RealTokens
from .state import LayerState


class ShortConvolution(nn.Module):
    """out(C * conv(B * x)), where B, C and x are linear in the input.

    Args:
        dim: features of the stream.
        kernel: tokens of the convolution.
        inner: features of the convolution; None: dim.
        bias: of the convolution and of both linear layers.
    """

    def __init__(self, dim: int, kernel: int, inner: int | None, bias: bool) -> None:
        super().__init__()
        inner = dim if inner is None else inner
        self.to_in = nn.Linear(dim, 3 * inner, bias=bias)
        self.conv = CausalConv(inner, kernel, bias)
        self.to_out = nn.Linear(inner, dim, bias=bias)

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: LayerState | None = None) -> Tensor:
        """`x: (batch, seq, dim)`, `mask: (batch, seq)` → (batch, seq, dim)."""
        real = RealTokens.of(mask, x.shape[1])
        before, after, values = apply(self.to_in, real.first(x)).chunk(3, dim=-1)
        return real.back(apply(self.to_out, after * self.conv(before * values, real, cache)))
