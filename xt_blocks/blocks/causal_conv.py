"""The depthwise causal convolution of the blocks that carry a state along the sequence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import compat
from ..kernels.scans import gpu
from .init import xavier
from .real_tokens import RealTokens
from .state import LayerState

PIECE = 2**16
"""Numbers of the tokens that are read at once."""


class CausalConv(nn.Module):
    """Each feature's weighted sum over a token and the `kernel - 1` before it, each feature with weights of its own.

    Of what came before `x`, a state of (kernel - 1, features) is kept: the last real tokens, zeros before the first.

    Args:
        features: of each token.
        kernel: tokens of a sum.
        bias: a learned bias for each feature.

    Attributes:
        weight: (features, 1, kernel), the token's own weight last
        bias: (features,), or None.
    """

    def __init__(self, features: int, kernel: int, bias: bool = True) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(features, 1, kernel))
        self.bias = nn.Parameter(torch.empty(features)) if bias else None
        bound = 1 / math.sqrt(kernel)  # torch's, of a convolution
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def init_xavier(self, gain: float) -> None:
        """Xavier normal weights with this gain, biases zero."""
        xavier(self.weight, self.bias, gain)

    def forward(self, x: Tensor, real: RealTokens, cache: LayerState | None = None, name: str = "conv") -> Tensor:
        """`x: (batch, seq, features)`, real tokens first → the same shape.

        Args:
            real: which tokens are; what comes out for padding is of no meaning.
            cache: x goes on after the tokens whose state it has.
            name: of the state's piece.
        """
        before = self.kernel - 1
        nothing = x.new_zeros(x.shape[0], before, x.shape[2])
        tail = nothing if cache is None or not before else cache.tail(name, x, real)
        return causal_conv(x, tail, self.weight, self.bias)


def causal_conv(x: Tensor, tail: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of `x: (batch, seq, features)` after `tail: (batch, kernel - 1, features)`."""
    if not x.shape[1]:
        return x
    if x.shape[1] > 1 and _by_rows(x, weight):
        rows: Tensor = _Rows.apply(x, tail, weight, bias)  # type: ignore[no-untyped-call]
        return rows
    if x.shape[1] > 1 and gpu.refuses_convolution(x, weight) is None:
        return gpu.convolve(x, tail, weight, bias)
    joined = torch.cat((tail, x), dim=1)
    if x.shape[1] == 1:
        out = torch.einsum("bkf,fk->bf", joined, weight[:, 0])[:, None]
        return out if bias is None else out + bias
    return F.conv1d(joined.transpose(1, 2), weight, bias, groups=x.shape[-1]).transpose(1, 2)


def _by_rows(x: Tensor, weight: Tensor) -> bool:
    """Whether sums of rows are as exact as conv1d, which sums bfloat16 in float32, and nothing follows operations."""
    if not x.is_cpu or x.dtype != weight.dtype or x.dtype not in (torch.float32, torch.float64):
        return False
    return not (torch.compiler.is_compiling() or compat.transforms_active() or compat.modes_active())


class _Rows(torch.autograd.Function):
    """The convolution as a weighted sum of shifted rows: conv1d would copy the tokens from rows to columns and back.

    Some tokens after others, so that what is read several times is in a core's cache.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, tail: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, tail, weight)
        first, *others = weight[:, 0].T.contiguous()
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        for at, rows in _pieces(x, tail):
            own, size = out[:, at], at.stop - at.start
            if bias is None:
                torch.mul(rows[:, :size], first, out=own)
            else:
                torch.addcmul(bias, rows[:, :size], first, out=own)
            for shift, factor in enumerate(others, 1):
                own.addcmul_(rows[:, shift : shift + size], factor)
        return out

    @staticmethod
    def backward(ctx: Any, of_out: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        x, tail, weight = ctx.saved_tensors
        before, factors = tail.shape[1], weight[:, 0].T.contiguous()
        of_rows = of_out.new_zeros(x.shape[0], before + x.shape[1], x.shape[2])
        of_factors = torch.zeros_like(factors)
        for at, rows in _pieces(x, tail):
            own, size = of_out[:, at], at.stop - at.start
            for shift, factor in enumerate(factors):
                of_rows[:, at.start + shift : at.stop + shift].addcmul_(own, factor)
                of_factors[shift] += (rows[:, shift : shift + size] * own).sum((0, 1))
        of_bias = of_out.sum((0, 1)) if ctx.needs_input_grad[3] else None
        return of_rows[:, before:], of_rows[:, :before], of_factors.T[:, None], of_bias


def _pieces(x: Tensor, tail: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Places of some tokens of `x`, and these tokens after the `tail.shape[1]` before them."""
    before, seq = tail.shape[1], x.shape[1]
    size = max(before, 1, PIECE // max(1, x.shape[0] * x.shape[2]))
    for start in range(0, seq, size):
        at = slice(start, min(start + size, seq))
        yield at, torch.cat((x[:, start - before : start] if start else tail, x[:, at]), dim=1)
