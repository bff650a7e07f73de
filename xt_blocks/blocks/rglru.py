"""The recurrent block of Griffin and RecurrentGemma (De et al., arXiv:2402.19427)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.activations import ACTIVATIONS
from ..kernels.scans.decay import wide
from ..kernels.scans.linear import linear_scan
from .causal_conv import CausalConv
from .linear import apply
from .real_tokens import RealTokens
from .state import LayerState

SHARPNESS = 8.0
"""The paper's c: the recurrence gate is an exponent from 0 to c of the learned decay."""

LEAST = 1e-12
"""Of what a square root is taken of, whose gradient is infinite at zero."""


class BlockDiagonal(nn.Module):
    """A linear layer whose matrix has blocks on its diagonal alone.

    Attributes:
        weight: (blocks, in, out)
        bias: (blocks, out)
    """

    def __init__(self, features: int, blocks: int) -> None:
        super().__init__()
        size = features // blocks
        self.weight = nn.Parameter(torch.empty(blocks, size, size))
        self.bias = nn.Parameter(torch.zeros(blocks, size))
        nn.init.normal_(self.weight, std=size**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., features)` → the same shape."""
        blocks = torch.unflatten(x, -1, (len(self.weight), -1))
        out = torch.einsum("...bi,bio->...bo", blocks, self.weight) + self.bias
        return out.flatten(-2)


class RecurrentBlock(nn.Module):
    """out(RG-LRU(conv(x)) * gelu(gate)), where x and the gate are linear in the input.

    RG-LRU: h = a h + sqrt(1 - a²) (i * x), with a = exp(-8 r softplus(decay)) and gates i and r of x. The first token
    of a sequence is not scaled down, as there is nothing before it.

    Args:
        dim: features of the stream.
        width: of the recurrence; None: dim.
        heads: blocks of the gates' matrices.
        kernel: tokens of the convolution.
    """

    def __init__(self, dim: int, width: int | None, heads: int, kernel: int) -> None:
        super().__init__()
        self.width = width = width or dim
        self.to_in = nn.Linear(dim, 2 * width)
        self.conv = CausalConv(width, kernel)
        self.input_gate, self.recurrence_gate = BlockDiagonal(width, heads), BlockDiagonal(width, heads)
        self.decay = nn.Parameter(torch.empty(width))
        self.to_out = nn.Linear(width, dim)
        with torch.no_grad():  # exp(-softplus(decay)) from 0.9 to 0.999, its square uniform (the paper's appendix A)
            (decay,) = wide(self.decay)  # few bits would make some of them 1
            kept = torch.empty_like(decay).uniform_(0.9**2, 0.999**2).sqrt()
            self.decay.copy_((1 / kept - 1).log())

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: LayerState | None = None) -> Tensor:
        """`x: (batch, seq, dim)`, `mask: (batch, seq)` → (batch, seq, dim)."""
        real = RealTokens.of(mask, x.shape[1])
        values, gate = apply(self.to_in, real.first(x)).chunk(2, dim=-1)
        h = self._recurrence(self.conv(values, real, cache), real, cache)
        return real.back(apply(self.to_out, h.to(gate.dtype) * ACTIVATIONS["gelu_tanh"](gate)))

    def _recurrence(self, x: Tensor, real: RealTokens, cache: LayerState | None) -> Tensor:
        """`x: (batch, seq, width)`, real tokens first → the same shape, in float32 at least."""
        batch, seq, width = x.shape
        i, r, x, decay = wide(self.input_gate(x).sigmoid(), self.recurrence_gate(x), x, self.decay)
        log_a = -SHARPNESS * r.sigmoid() * F.softplus(decay)
        a, scale = log_a.exp(), (-torch.expm1(2 * log_a)).clamp(min=LEAST).sqrt()
        started = x.new_zeros(batch, 1) if cache is None else cache.read("started")
        is_first = torch.arange(seq, device=x.device, dtype=torch.int64)[:, None] == 0
        b = scale.masked_fill(is_first & (started == 0)[:, None], 1.0) * i * x
        if real.mask is not None:
            a, b = a.masked_fill(~real.mask[..., None], 1.0), real.only(b)
        before = x.new_zeros(batch, width) if cache is None else cache.read("state").to(x.dtype)
        h = linear_scan(a, b, before)
        if cache is not None:
            cache.write("state", h[:, -1] if seq else before)
            seen = torch.full_like(started, float(seq > 0))
            seen = seen if real.count is None else (real.count > 0).to(started.dtype)[:, None]
            cache.write("started", started.maximum(seen))
        return h
