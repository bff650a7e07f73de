"""The depthwise causal convolution of the blocks that carry a state along the sequence."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import compat
from .init import xavier
from .real_tokens import RealTokens
from .state import LayerState


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
        if cache is None or not before:
            tail = x.new_zeros(x.shape[0], before, x.shape[2])
        else:
            tail = cache.read(name).to(x.dtype)
        out, last = causal_conv(x, tail, self.weight, self.bias, real)
        if cache is not None and before:
            cache.write(name, last)
        return out


def causal_conv(
    x: Tensor, tail: Tensor, weight: Tensor, bias: Tensor | None, real: RealTokens
) -> tuple[Tensor, Tensor]:
    """The convolution of `x: (batch, seq, features)` after `tail: (batch, kernel - 1, features)`, and the next tail."""
    joined = torch.cat((tail, x), dim=1)
    last = _last(joined, real, tail.shape[1])
    if not x.shape[1]:
        return x, last
    if x.shape[1] == 1:
        out = torch.einsum("bkf,fk->bf", joined, weight[:, 0])[:, None]
        return (out if bias is None else out + bias), last
    if _by_rows(joined, weight):
        return _Rows.apply(joined, weight, bias), last  # type: ignore[no-untyped-call]
    return F.conv1d(joined.transpose(1, 2), weight, bias, groups=x.shape[-1]).transpose(1, 2), last


def _by_rows(x: Tensor, weight: Tensor) -> bool:
    """Whether sums of rows are as exact as conv1d, which sums bfloat16 in float32, and nothing follows operations."""
    if not x.is_cpu or x.dtype != weight.dtype or x.dtype not in (torch.float32, torch.float64):
        return False
    return not (torch.compiler.is_compiling() or compat.transforms_active() or compat.modes_active())


class _Rows(torch.autograd.Function):
    """The convolution as a weighted sum of shifted rows: conv1d would copy the tokens from rows to columns and back."""

    @staticmethod
    def forward(ctx: Any, joined: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(joined, weight)
        first, *others = weight[:, 0].T.contiguous()
        seq = joined.shape[1] - len(others)
        out = joined[:, :seq] * first if bias is None else torch.addcmul(bias, joined[:, :seq], first)
        for shift, own in enumerate(others, 1):
            out.addcmul_(joined[:, shift : shift + seq], own)
        return out

    @staticmethod
    def backward(ctx: Any, of_out: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        joined, weight = ctx.saved_tensors
        seq, of_joined, of_weight = of_out.shape[1], torch.zeros_like(joined), []
        for shift, own in enumerate(weight[:, 0].T.contiguous()):
            of_joined[:, shift : shift + seq].addcmul_(of_out, own)
            of_weight.append((joined[:, shift : shift + seq] * of_out).sum((0, 1)))
        of_bias = of_out.sum((0, 1)) if ctx.needs_input_grad[2] else None
        return of_joined, torch.stack(of_weight, dim=1)[:, None], of_bias


def _last(joined: Tensor, real: RealTokens, before: int) -> Tensor:
    """(batch, before, features): the last real tokens of `joined: (batch, before + seq, features)`."""
    if real.count is None:
        return joined[:, joined.shape[1] - before :]
    at = real.count[:, None] + torch.arange(before, device=joined.device, dtype=torch.int64)
    return joined.gather(1, at[..., None].expand(-1, -1, joined.shape[-1]))
