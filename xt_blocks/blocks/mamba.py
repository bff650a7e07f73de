"""The Mamba-1 block: a gated state space layer in which each feature keeps a state of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.registry.builtin.mamba import MAMBA
from blockdsl.registry.keywords import parameters, spells
from blockdsl.registry.options import by_name

from ..kernels.scans.decay import wide
from ..kernels.scans.selective import selective_scan
from .causal_conv import CausalConv
from .init import xavier
from .linear import apply
from .part import ALONE, LayerPart
from .real_tokens import RealTokens
from .state import LayerState

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from blockdsl.signatures import MambaOptions


class Mamba(nn.Module):
    """Mamba (Gu & Dao, arXiv:2312.00752).

    Args:
        dim: features of the stream.
        options: of the block kind `mamba`: state, expand, kernel, ...; see `blockdsl.registry.builtin`.

    Attributes:
        to_in: rows of x, and of the gate.
        to_scan: rows of the steps' low rank, of B and of C.
        to_dt: steps Δ are the softplus of what it gives.
        A_log: (inner, state); a token decays a state by exp(-exp(A_log)·Δ).
        D: (inner,), how much of x goes past the state.
        part: which of the features it has.

    Raises:
        TypeError: an unknown option; the message names the nearest one.
        ValueError: a value out of range, or options that clash.
    """

    part = ALONE

    @spells(parameters(by_name(MAMBA.options)))
    def __init__(self, dim: int, **options: Unpack[MambaOptions]) -> None:
        super().__init__()
        o = MAMBA.complete(dim, options, f"{type(self).__name__}()")
        dtype = torch.get_default_dtype()
        self.parts = o.dt_rank, o.state, o.state
        self.to_in = nn.Linear(dim, 2 * o.inner, bias=o.bias)
        self.conv = CausalConv(o.inner, o.kernel, o.conv_bias)
        self.to_scan = nn.Linear(o.inner, sum(self.parts), bias=False)
        norms = [
            nn.RMSNorm(size, o.rmsnorm_eps, elementwise_affine=o.rmsnorm == "gain") if o.rmsnorm else nn.Identity()
            for size in self.parts
        ]
        self.dt_norm, self.b_norm, self.c_norm = norms
        self.to_dt = nn.Linear(o.dt_rank, o.inner)
        self.A_log = nn.Parameter(torch.arange(1, o.state + 1, dtype=dtype).log().repeat(o.inner, 1))
        self.D = nn.Parameter(torch.ones(o.inner, dtype=dtype))
        self.to_out = nn.Linear(o.inner, dim, bias=o.bias)
        nn.init.uniform_(self.to_dt.weight, -(o.dt_rank**-0.5), o.dt_rank**-0.5)
        with torch.no_grad():  # softplus of the bias is log-uniform
            step = self.to_dt.bias.uniform_(math.log(o.dt_min), math.log(o.dt_max)).exp_()
            step.add_((-torch.expm1(-step)).log_())

    def take_part(self, part: LayerPart) -> None:
        """Make steps, B and C of the features of all parts, of which these are one."""
        self.part = part

    def init_xavier(self, gain: float) -> None:
        """Xavier normal weights of the layers that values pass through, with this gain; steps start as they do."""
        for layer in (self.to_in, self.to_out):
            xavier(layer.weight, layer.bias, gain)
        self.conv.init_xavier(gain)

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
        x, gate = apply(self.to_in, real.first(x)).chunk(2, dim=-1)
        x = F.silu(self.conv(x, real, cache))
        dt, b, c = torch.split(self.part.total(apply(self.to_scan, x)), [*self.parts], dim=-1)
        dt, b, c = apply(self.to_dt, self.dt_norm(dt)), self.b_norm(b), self.c_norm(c)
        values, dt, b, c, a, d = wide(x, dt, b, c, self.A_log, self.D)
        dt = real.only(F.softplus(dt))  # padding neither enters the state nor decays it
        start = (
            values.new_zeros(x.shape[0], *reversed(a.shape)) if cache is None else cache.read("ssm").to(values.dtype)
        )
        y, state = selective_scan(values, dt, -a.exp(), b, c, start)
        if cache is not None:
            cache.write("ssm", state)
        y = torch.addcmul(y, values, d).to(gate.dtype) * F.silu(gate)
        return real.back(apply(self.to_out, y))
