"""The Mamba-2 block: a gated state space layer whose state decays by one number a head."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.registry.builtin.mamba2 import MAMBA2
from blockdsl.registry.keywords import parameters, spells
from blockdsl.registry.options import by_name

from ..kernels.scans.ssd import ssd
from .causal_conv import CausalConv
from .init import xavier
from .linear import apply
from .real_tokens import RealTokens
from .state import LayerState

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from blockdsl.signatures import Mamba2Options


class GatedNorm(nn.Module):
    """RMSNorm of features that a gate multiplies, before the norm or after it.

    Args:
        groups: parts of the features, each with a mean square of its own.
        gate_first: the gate is before the norm.
    """

    def __init__(self, features: int, groups: int, gate_first: bool, eps: float) -> None:
        super().__init__()
        self.groups, self.gate_first, self.eps = groups, gate_first, eps
        self.weight = nn.Parameter(torch.ones(features, dtype=torch.get_default_dtype()))

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """`x, gate: (..., features)` → (..., features)"""
        x = x * F.silu(gate) if self.gate_first else x
        if self.groups == 1:
            out = F.rms_norm(x, x.shape[-1:], self.weight, self.eps)
        else:
            grouped = torch.unflatten(x, -1, (self.groups, -1))
            out = F.rms_norm(grouped, grouped.shape[-1:], eps=self.eps).flatten(-2) * self.weight
        return out if self.gate_first else out * F.silu(gate)


class Mamba2(nn.Module):
    """Mamba-2 (Dao & Gu, arXiv:2405.21060).

    Args:
        dim: features of the stream.
        options: of the block kind `m`: state, heads, dim_head, groups, ...; see `blockdsl.registry.builtin`.

    Attributes:
        to_in: rows of the gate z, of x, B and C, and of the steps Δ, one a head.
        A_log, dt_bias: (heads,); with Δ = softplus(its row + dt_bias) a token's log decay is -exp(A_log)·Δ.
        D: (heads,), how much of x goes past the state.

    Raises:
        TypeError: an unknown option; the message names the nearest one.
        ValueError: a value out of range, or options that clash.
    """

    @spells(parameters(by_name(MAMBA2.options)))
    def __init__(self, dim: int, **options: Unpack[Mamba2Options]) -> None:
        super().__init__()
        o = MAMBA2.complete(dim, options, f"{type(self).__name__}()")
        self.heads, self.groups, self.chunk = o.heads, o.groups, o.chunk
        self.dt_limits = o.dt_limit_min, o.dt_limit_max
        written = o.groups * o.state
        self.parts = o.inner, o.inner, written, written, o.heads  # z, x, B, C, Δ
        self.convolved = o.inner + 2 * written
        self.in_scales = None if o.in_scales is None else tuple(map(float, o.in_scales))
        self.to_in = nn.Linear(dim, sum(self.parts), bias=o.bias)
        self.conv = CausalConv(self.convolved, o.kernel, o.conv_bias)
        dtype = torch.get_default_dtype()
        step = torch.empty(o.heads, device=self.to_in.weight.device, dtype=dtype)
        step = step.uniform_(math.log(o.dt_min), math.log(o.dt_max)).exp()
        self.dt_bias = nn.Parameter(step + (-torch.expm1(-step)).log())  # the inverse of softplus
        self.A_log = nn.Parameter(torch.empty(o.heads, dtype=dtype).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(o.heads, dtype=dtype))
        groups = o.groups if o.gated_norm == "group" else 1
        self.norm = None if o.gated_norm is None else GatedNorm(o.inner, groups, o.gate_first, o.gated_norm_eps)
        self.to_out = nn.Linear(o.inner, dim, bias=o.bias)

    def init_xavier(self, gain: float) -> None:
        """Xavier normal weights, with this gain for the gate, what enters the state, and the output."""
        gains = (gain, gain, 1.0, 1.0, 1.0)
        for rows, own in zip(torch.split(self.to_in.weight.detach(), [*self.parts]), gains, strict=True):
            xavier(rows, gain=own)
        for layer in (self.to_in, self.to_out):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        xavier(self.to_out.weight, gain=gain)

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: LayerState | None = None) -> Tensor:
        """
        Args:
            x: (batch, seq, dim)
            mask: (batch, seq) bool, True = a real token; None: all are.
            cache: x goes on after the tokens whose state it has.

        Returns:
            (batch, seq, dim), zeros at padding.
        """
        real = RealTokens.of(mask, x.shape[1])
        given = apply(self.to_in, real.first(x))
        if self.in_scales is not None:
            given = given * torch.cat(
                [given.new_full((n,), s) for n, s in zip(self.parts, self.in_scales, strict=True)]
            )
        z, convolved, dt = torch.split(given, [self.parts[0], self.convolved, self.heads], dim=-1)
        values, b, c = torch.split(F.silu(self.conv(convolved, real, cache)), [*self.parts[1:4]], dim=-1)
        wide = torch.promote_types(x.dtype, torch.float32)
        dt = F.softplus(dt.to(wide) + self.dt_bias.to(wide))
        if self.dt_limits != (0.0, None):
            dt = dt.clamp(*self.dt_limits)
        dt = real.only(dt)  # padding neither enters the state nor decays it
        values = torch.unflatten(values, -1, (self.heads, -1))
        b, c = (torch.unflatten(t, -1, (self.groups, -1)) for t in (b, c))
        state = None if cache is None else cache.read("ssm").to(wide)
        entering = values * dt.to(values.dtype)[..., None]
        y, state = ssd(entering, -self.A_log.to(wide).exp() * dt, b, c, state, self.chunk)
        if cache is not None:
            cache.write("ssm", state)
        y = torch.addcmul(y, values, self.D[:, None].to(y.dtype)).flatten(2)
        y = y * F.silu(z) if self.norm is None else self.norm(y, z)
        return real.back(apply(self.to_out, y))
