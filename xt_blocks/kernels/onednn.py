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

from . import compat

RUN = compat.linear_pointwise
HAS_ONEDNN = RUN is not None


def plain(x: Tensor, weight: Tensor) -> bool:
    """Whether a program may depend on their sizes: none is recorded from them, and they are no other kind of tensor."""
    if torch.compiler.is_dynamo_compiling() or compat.is_tracing():
        return False
    return type(x) in _PLAIN and type(weight) is nn.Parameter


_PLAIN = (Tensor, nn.Parameter)


def takes(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether it multiplies these, `x: (..., features)`, `weight: (out, features)` and `bias: (out,)`, and may do so.

    They are plain dense tensors on the CPU, of one type and not empty, and nothing watches or changes the operations.
    A weight that stands in for a module's own is none of its. It checks little itself, and so what torch refuses, or
    understands otherwise, is left to torch.
    """
    return plain(x, weight) and has(weight, bias) and reads(x, weight)


def has(weight: Tensor, bias: Tensor | None) -> bool:
    """The part of it that asks for the map: the kernel reads a bias as if its numbers lay side by side."""
    for own in (weight, bias):
        if own is not None and not (own.is_cpu and own.layout is torch.strided and own.dtype == weight.dtype):
            return False
    return bias is None or (type(bias) in _PLAIN and bias.shape == weight.shape[:1] and bias.is_contiguous())


def reads(x: Tensor, weight: Tensor) -> bool:
    """The part of it that asks for x, one that is `plain`."""
    if not x.is_cpu or x.layout is not torch.strided or x.is_nested or x.dtype != weight.dtype:
        return False
    return x.ndim > 1 and x.shape[-1:] == weight.shape[1:] and x.numel() > 0 and not watched()


def watched() -> bool:
    """Whether something follows or changes each operation, or is not to have oneDNN's.

    That is a transform, a counter of FLOPs, autocast, or `torch.backends.mkldnn.flags(enabled=False)`.
    """
    followed = compat.modes_active() or torch.is_autocast_enabled("cpu") or compat.transforms_active()
    return followed or not compat.onednn_enabled()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear`, gradients included, of a float32 x, weight and bias that it `takes`."""
    return _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return run(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad, (for_x, for_weight, for_bias) = grads[0], ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        # the plain one can be differentiated again
        product = F.linear if torch.is_grad_enabled() or watched() else run
        return (
            product(grad, weight.T) if for_x else None,
            product(rows.T, x.reshape(-1, x.shape[-1]).contiguous().T) if for_weight else None,
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
