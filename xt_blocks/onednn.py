"""Linear maps by oneDNN's float32 kernels, gradients included.

torch multiplies float32 matrices with MKL, which on some processors leaves half of their vector units idle; oneDNN,
which torch has for other types, does not. The results differ by rounding alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

HAS_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
RUN: Any = torch.ops.mkldnn._linear_pointwise.default if HAS_ONEDNN else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` of `x: (..., features)`, float32 on the CPU, not empty, and `weight: (out, features)`."""
    return _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _run(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad, rows, (for_x, for_weight, for_bias) = grads[0], grads[0].flatten(0, -2), ctx.needs_input_grad
        product = F.linear if torch.is_grad_enabled() else _run  # the plain one can be differentiated again
        return (
            product(grad, weight.T) if for_x else None,
            product(rows.T, x.flatten(0, -2).T) if for_weight else None,
            rows.sum(dim=0) if for_bias else None,
        )


def _run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    out: Tensor = RUN(x, weight, bias, "none", [], "")
    return out
