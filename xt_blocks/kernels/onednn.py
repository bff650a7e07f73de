"""Linear layers by oneDNN's kernels.

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

from . import compat, ops

RUN = compat.linear_pointwise
HAS_ONEDNN = RUN is not None

Activation = tuple[str, list[float], str]
PLAIN: Activation = ("none", [], "")
ACTIVATIONS: dict[str, Activation] = {
    "": PLAIN,
    "gelu": ("gelu", [], "none"),
    "gelu_tanh": ("gelu", [], "tanh"),
    "silu": ("swish", [], ""),
    "relu": ("relu", [], ""),
    "tanh": ("tanh", [], ""),
    "sigmoid": ("sigmoid", [], ""),
}
"""Those that it computes with a linear layer in one pass, as it calls them."""


def are_plain(x: Tensor, weight: Tensor) -> bool:
    """Whether code may branch on their sizes: they are plain tensors, and no compiler or tracer records it."""
    if torch.compiler.is_dynamo_compiling() or compat.is_tracing():
        return False
    return type(x) in _PLAIN and type(weight) is nn.Parameter


_PLAIN = (Tensor, nn.Parameter)


def takes(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether oneDNN can and may multiply these, `x: (..., features)`, `weight: (out, features)`, `bias: (out,)`.

    They are plain dense tensors on the CPU, of one type and not empty, and nothing follows or changes the operations.
    oneDNN itself checks little, so what torch refuses, or
    reads in another way, is left to torch. A weight must be a parameter, not a stand-in for one.
    """
    return are_plain(x, weight) and has(weight, bias) and reads(x, weight)


def has(weight: Tensor, bias: Tensor | None) -> bool:
    """The layer's part of `takes`; the kernel reads a bias as if it were contiguous."""
    for own in (weight, bias):
        if own is not None and not (own.is_cpu and own.layout is torch.strided and own.dtype == weight.dtype):
            return False
    return bias is None or (type(bias) in _PLAIN and bias.shape == weight.shape[:1] and bias.is_contiguous())


def reads(x: Tensor, weight: Tensor) -> bool:
    """The part of `takes` about x, once it is `plain`."""
    if not x.is_cpu or x.layout is not torch.strided or x.is_nested or x.dtype != weight.dtype:
        return False
    return x.ndim > 1 and x.shape[-1:] == weight.shape[1:] and x.numel() > 0 and not followed()


def followed() -> bool:
    """Whether something follows or changes each operation, or oneDNN is switched off.

    That is a transform, a FLOP counter, autocast, or `torch.backends.mkldnn.flags(enabled=False)`.
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
        rows, inputs = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        plain = torch.is_grad_enabled() or followed()  # which can be differentiated again
        return (
            (F.linear if plain else run)(grad, weight.T) if for_x else None,
            (rows.T @ inputs if plain else outer(rows, inputs)) if for_weight else None,
            rows.sum(dim=0) if for_bias else None,
        )


def run(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = PLAIN) -> Tensor:
    """`F.linear` and an activation, without gradients, of an x that it `takes` and its weight, packed or not."""
    rows = x.shape[:-1].numel()
    if rows == 1 or (sizes := pieces(rows)) == [rows]:
        whole: Tensor = RUN(x, weight, bias, *activation)
        return whole
    flat = x.reshape(rows, x.shape[-1])
    if len(sizes) == 1:
        out: Tensor = RUN(_padded(flat, sizes[0]), weight, bias, *activation)[:rows]
    else:
        if compat.reorder_linear_weight is not None and not weight.is_mkldnn:
            weight = compat.reorder_linear_weight(weight)  # once for all pieces
        out = x.new_empty(rows, weight.shape[0])
        start = 0
        for size in sizes:
            part = flat[start : start + size]
            out[start : start + size] = RUN(_padded(part, size), weight, bias, *activation)[: len(part)]
            start += size
    return out.view(*x.shape[:-1], out.shape[-1])


def outer(left: Tensor, right: Tensor) -> Tensor:
    """`left.T @ right` of `(rows, features)` each, the gradient of a weight."""
    out: Tensor | None = None
    start = 0
    for size in pieces(len(left)):
        if size < MANY:  # MKL adds the rest in place
            return left[start:].T @ right[start:] if out is None else out.addmm_(left[start:].T, right[start:])
        a, b = (x[start : start + size].contiguous().T for x in (left, right))
        part: Tensor = RUN(a, b, None, *PLAIN)
        out = part if out is None else out.add_(part)
        start += size
    assert out is not None
    return out


def pieces(rows: int) -> list[int]:
    """Sizes that add up to `rows` or a few more, the largest first: powers of two, but for 128.

    oneDNN makes a kernel of 0.6 MB for each shape, and keeps it: so few sizes serve any number of rows. Up to FEW, as
    in a decoding step of several texts, one piece does, since each reads the weight.
    """
    if rows <= FEW:
        return [1 << (rows - 1).bit_length()]
    sizes = []
    while rows > 0:
        largest = 1 << (rows.bit_length() - 1)
        sizes.append(largest if largest >= MANY else FEW)
        rows -= sizes[-1]
    return sizes


FEW, MANY = 64, 256
"""Sizes are powers of two from MANY rows on; the rest is cut into pieces of FEW rows, the last padded with zeros."""


def _padded(x: Tensor, rows: int) -> Tensor:
    """`x: (fewer, features)` followed by rows of zeros."""
    return x if len(x) == rows else F.pad(x, (0, 0, 0, rows - len(x)))


# In compiled graphs


def compiled_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
    """`F.linear` of float32, gradients included, in a graph that torch.compile makes; None: leave it to torch.

    An exported graph keeps torch's operator. torch 2.7 compiles `is_exporting` to True, so there every graph does.
    """
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if torch.compiler.is_exporting() or torch.is_autocast_enabled("cpu") or x.ndim < 2 or weight.ndim != 2:
        return None
    if any(own.device.type != "cpu" or own.dtype != torch.float32 for own in tensors):
        return None
    out: Tensor = _LINEAR(x, weight, bias)
    return out


def _run(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if x.numel() and weight.numel() and compat.onednn_enabled():
        return run(x, weight, bias)
    return F.linear(x, weight, bias)


def _run_outer(left: Tensor, right: Tensor) -> Tensor:
    return outer(left, right) if left.numel() and right.numel() and compat.onednn_enabled() else left.T @ right


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    for_x, for_weight, for_bias = ctx.needs_input_grad
    rows, inputs = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
    return (
        _LINEAR(grad, weight.T, None) if for_x else None,
        _OUTER(rows, inputs) if for_weight else None,
        rows.sum(dim=0) if for_bias else None,
    )


_LINEAR = ops.define(
    "linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
    _run,
    lambda x, weight, bias: x.new_empty(*x.shape[:-1], weight.shape[0]),
    _backward,
    _save,
)
_OUTER = ops.define(
    "outer(Tensor left, Tensor right) -> Tensor",
    _run_outer,
    lambda left, right: left.new_empty(left.shape[1], right.shape[1]),
)


def _vendor() -> str:
    """A text that contains the processor's vendor, such as AuthenticAMD."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next((line for line in lines if line.startswith("vendor_id")), "")
    except OSError:
        return platform.processor()


HAS_MKL: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
BEATS_MKL = HAS_ONEDNN and HAS_MKL and "AMD" in _vendor()
"""Whether oneDNN is faster than MKL, as measured on an AMD processor: 1.3 to 1.7 times for one row, 2.2 for many."""
MKL_READS_FASTER = HAS_MKL and not BEATS_MKL
"""Whether MKL multiplies one row in float32 faster than oneDNN by packed weights: on an Intel processor, 1.1 times."""
