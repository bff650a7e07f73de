"""GPU kernels of other libraries for scans and the convolution, held to ours in float64, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from xt_blocks.blocks.causal_conv import causal_conv
from xt_blocks.blocks.real_tokens import RealTokens
from xt_blocks.kernels.scans import gpu
from xt_blocks.kernels.scans.delta import delta_rule
from xt_blocks.kernels.scans.gla import gated_linear_attention

from ..benchmarks.case import Options
from .check import Check, NotHere
from .precision import held_to

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def checks() -> list[Check]:
    scans = {"delta rule": True, "linear attention": False}
    return [
        Check(f"scan/{title}{of}", partial(check, dtype, case), 150, later=title == "float16")
        for title, dtype in DTYPES.items()
        for of, case in {
            **{
                f", {name}, {by}": partial(scan, delta, by)
                for name, delta in scans.items()
                for by in ("head", "channel")
            },
            ", convolution": convolution,
        }.items()
    ]


Drawn = tuple[Callable[..., tuple[Tensor, ...]], list[Tensor], "str | None"]


def scan(delta: bool, by: str, options: Options, dtype: torch.dtype) -> Drawn:
    """The scan, its inputs in float32, and why a kernel is not taken for them in `dtype`."""
    seq, heads, d, e = (70, 2, 16, 16) if options.quick else (1000, 8, 64, 128)
    q, k = (F.normalize(torch.randn(2, heads, seq, d), dim=-1) for _ in "qk")
    v, state = torch.randn(2, heads, seq, e), torch.randn(2, heads, d, e)
    g = -0.1 * torch.rand(2, heads, seq, 1 if by == "head" else d)
    inputs = [q, k, v, g, *[torch.rand(2, heads, seq)] * delta, state]
    on = [t.to(options.device, dtype) for t in inputs]
    asked = gpu.ScanRequest(*on[:4], on[4] if delta else None, on[-1])
    return delta_rule if delta else gated_linear_attention, inputs, gpu.refuses(asked)


def convolution(options: Options, dtype: torch.dtype) -> Drawn:
    inputs = [torch.randn(2, 300, 64), torch.randn(2, 3, 64), torch.randn(64, 1, 4), torch.randn(64)]
    on = [t.to(options.device, dtype) for t in inputs]

    def run(x: Tensor, tail: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return causal_conv(x, tail, weight, bias), RealTokens().last(tail, x)

    return run, inputs, gpu.refuses_convolution(on[0], on[2])


def check(dtype: torch.dtype, case: Callable[..., Drawn], options: Options) -> dict[str, Any]:
    torch.manual_seed(0)
    run, inputs, reason = case(options, dtype)
    if reason is not None and not options.quick:  # in small, ours is held to itself
        raise NotHere(reason)
    got = results(run, inputs, dtype, options.device)
    with mock.patch.object(gpu, "ENABLED", False):
        exact = results(run, [t.to(dtype) for t in inputs], torch.float64, options.device)
        plain = results(run, inputs, dtype, options.device)
    return held_to(exact, got, plain, dtype)


def results(
    run: Callable[..., tuple[Tensor, ...]], inputs: list[Tensor], dtype: torch.dtype, device: str
) -> dict[str, Tensor]:
    leaves = [t.to(device, dtype).requires_grad_() for t in inputs]
    out, after = run(*leaves)
    gradients = torch.autograd.grad(out.double().sin().sum() + after.double().cos().sum(), leaves)
    return {"out": out.detach(), "state": after.detach(), **{f"of {i}": grad for i, grad in enumerate(gradients)}}
