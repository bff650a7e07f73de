"""Linear maps by oneDNN's kernels.

torch multiplies float32 matrices with MKL, which leaves half of the vector units of some processors idle, and reads
the weights of a few rows at half of the memory's speed; oneDNN, which torch has for other types, does not. The results
differ by rounding alone.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import transforms

HAS_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
RUN: Any = torch.ops.mkldnn._linear_pointwise.default._op if HAS_ONEDNN else None


def takes(x: Tensor, weight: Tensor) -> bool:
    """Whether these are what it multiplies, `x: (..., features)` and `weight: (out, features)`, and may.

    They are plain tensors on the CPU, of one type and not empty, and nothing watches or changes the operations: no
    compiler, no transform, no counter of FLOPs, no autocast. A weight that stands in for a module's own is none of its.
    """
    if torch.compiler.is_dynamo_compiling() or type(x) not in _PLAIN or type(weight) is not nn.Parameter:
        return False
    if not x.is_cpu or x.dtype != weight.dtype or x.ndim < 2 or not x.numel():
        return False
    watched = torch._C._len_torch_dispatch_stack() or torch.is_autocast_enabled("cpu") or transforms.active()
    return torch._C._get_mkldnn_enabled() and not watched


_PLAIN = (Tensor, nn.Parameter)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear`, gradients included, of a float32 x and weight that it `takes`."""
    return _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return run(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad, rows, (for_x, for_weight, for_bias) = grads[0], grads[0].flatten(0, -2), ctx.needs_input_grad
        product = F.linear if torch.is_grad_enabled() else run  # the plain one can be differentiated again
        return (
            product(grad, weight.T) if for_x else None,
            product(rows.T, x.flatten(0, -2).T) if for_weight else None,
            rows.sum(dim=0) if for_bias else None,
        )


def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, without gradients, of an x that it `takes` and its weight or a packed copy of it."""
    out: Tensor = RUN(x, weight, bias, "none", [], "")
    return out


def _vendor() -> str:
    """Text with the name that the processor has for its maker, such as AuthenticAMD."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next((line for line in lines if line.startswith("vendor_id")), "")
    except OSError:
        return platform.processor()


HAS_MKL: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
BEATS_MKL = HAS_ONEDNN and HAS_MKL and "AMD" in _vendor()
"""Whether it is the faster one, as measured on an AMD processor: 1.3 to 1.7 times for one row, 2.2 for many."""
