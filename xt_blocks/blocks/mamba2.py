"""The Mamba-2 block: a gated state space layer whose state decays by one number a head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.registry.builtin.mamba2 import MAMBA2
from blockdsl.registry.keywords import parameters, spells
from blockdsl.registry.options import by_name

from ..kernels.hooks import unhooked
from ..kernels.scans.pieces import in_pieces, pays
from ..kernels.scans.ssd import ssd
from .causal_conv import CausalConv, causal_conv
from .init import xavier, xavier_parts
from .linear import apply
from .part import ALONE, LayerPart, rms_norm
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

    Attributes:
        part: which of the features it has, if all of them are normed at once.
    """

    part = ALONE

    def __init__(self, features: int, groups: int, gate_first: bool, eps: float) -> None:
        super().__init__()
        self.groups, self.gate_first, self.eps = groups, gate_first, eps
        self.weight = nn.Parameter(torch.ones(features, dtype=torch.get_default_dtype()))

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """`x, gate: (..., features)` → (..., features)"""
        return self.apply_with(x, gate, self.weight)

    def apply_with(self, x: Tensor, gate: Tensor, weight: Tensor) -> Tensor:
        """The same with these weights."""
        x = x * F.silu(gate) if self.gate_first else x
        if self.part is not ALONE:
            out = rms_norm(x, weight, self.eps, self.part)
        elif self.groups == 1:
            out = F.rms_norm(x, x.shape[-1:], weight, self.eps)
        else:
            grouped = torch.unflatten(x, -1, (self.groups, -1))
            out = F.rms_norm(grouped, grouped.shape[-1:], eps=self.eps).flatten(-2) * weight
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
        self.state = o.heads, o.dim_head, o.state
        self.in_scales = None if o.in_scales is None else tuple(map(float, o.in_scales))
        self.to_in = nn.Linear(dim, sum(self.parts), bias=o.bias)
        self.conv = CausalConv(self.convolved, o.kernel, o.conv_bias)
        dtype = torch.get_default_dtype()
        step = torch.empty(o.heads, device=self.to_in.weight.device, dtype=dtype)
        step = step.uniform_(math.log(o.dt_min), math.log(o.dt_max)).exp()
        self.dt_bias = nn.Parameter(step + (-torch.expm1(-step)).log())  # the inverse of softplus
        self.A_log = nn.Parameter(torch.empty(o.heads, dtype=dtype).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(o.heads, dtype=dtype))
        groups, self.all_heads = o.groups if o.gated_norm == "group" else 1, o.gated_norm == "all"
        self.norm = None if o.gated_norm is None else GatedNorm(o.inner, groups, o.gate_first, o.gated_norm_eps)
        self.to_out = nn.Linear(o.inner, dim, bias=o.bias)

    def take_part(self, part: LayerPart) -> None:
        """Norm the outputs of all heads, of which these are a part."""
        if self.all_heads and isinstance(self.norm, GatedNorm):
            self.norm.part = part

    def init_xavier(self, gain: float) -> None:
        """Xavier normal weights, with this gain for the gate, what enters the state, and the output."""
        xavier_parts(self.to_in, self.parts, (gain, gain, 1.0, 1.0, 1.0))
        xavier(self.to_out.weight, self.to_out.bias, gain)

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
        y = self._in_pieces(given, real, cache) if self._pays(given) else self._at_once(given, real, cache)
        return real.back(apply(self.to_out, y))

    def _at_once(self, given: Tensor, real: RealTokens, cache: LayerState | None) -> Tensor:
        """What is between the two linear layers: (batch, seq, given) → (batch, seq, inner)."""
        z, convolved, dt = self._split(given)
        state = None if cache is None else cache.read("ssm")
        y, state = self._scan(self.conv(convolved, real, cache), dt, state, real, *self._scan_weights())
        if cache is not None:
            cache.write("ssm", state)
        return y * F.silu(z) if self.norm is None else self.norm(y, z)

    def _pays(self, given: Tensor) -> bool:
        """Whether pieces are faster, in which no module is called."""
        hidden = [module for module in (self.conv, self.norm) if module is not None]
        alone = getattr(self.norm, "part", ALONE) is ALONE  # ranks would wait for each other at each piece
        return alone and pays(given, self.chunk) and all(map(unhooked, hidden))

    def _in_pieces(self, given: Tensor, real: RealTokens, cache: LayerState | None) -> Tensor:
        """The same, one piece after another."""

        def run(
            x: Tensor, at: slice, states: Sequence[Tensor], weights: Sequence[Tensor], known: list[Tensor]
        ) -> tuple[Tensor, Sequence[Tensor]]:
            (tail, state), own = states, real.piece(at)
            z, convolved, dt = self._split(x)
            summed = causal_conv(convolved, tail, weights[3], None if self.conv.bias is None else weights[4])
            tail = own.last(tail, convolved)
            y, state = self._scan(summed, dt, state, own, *weights[:3], known=known)
            y = y * F.silu(z) if self.norm is None else self.norm.apply_with(y, z, weights[-1])
            return y, (tail, state)

        batch = len(given)
        conv, gain = self.conv, None if self.norm is None else self.norm.weight
        weights = [*self._scan_weights(), *(t for t in (conv.weight, conv.bias, gain) if t is not None)]
        before = conv.kernel - 1
        if cache is None:
            tail = given.new_zeros(batch, before, self.convolved)
            state = given.new_zeros(batch, *self.state, dtype=wide_of(given))
        else:
            tail = cache.read("conv").to(given.dtype) if before else given.new_zeros(batch, 0, self.convolved)
            state = cache.read("ssm").to(wide_of(given))
        y, (tail, state) = in_pieces(run, given, (tail, state), weights, self.chunk)
        if cache is not None:
            cache.write("ssm", state)
            if before:
                cache.write("conv", tail)
        return y

    def _split(self, given: Tensor) -> tuple[Tensor, ...]:
        """The gate z, what the convolution mixes (x, B, C), and the steps."""
        parts = torch.split(given, [self.parts[0], self.convolved, self.heads], dim=-1)
        if self.in_scales is None:
            return parts
        scale, *scales, of_steps = self.in_scales
        each = [given.new_full((n,), s) for n, s in zip(self.parts[1:4], scales, strict=True)]
        return parts[0] * scale, parts[1] * torch.cat(each), parts[2] * of_steps

    def _scan_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.A_log, self.dt_bias, self.D

    def _scan(
        self,
        convolved: Tensor,
        dt: Tensor,
        state: Tensor | None,
        real: RealTokens,
        a_log: Tensor,
        dt_bias: Tensor,
        skip: Tensor,
        *,
        known: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(batch, seq, inner), and the state after the last real token."""
        x, b, c = torch.split(F.silu(convolved), [*self.parts[1:4]], dim=-1)
        wide = wide_of(convolved)
        dt = F.softplus(dt.to(wide) + dt_bias.to(wide))
        if self.dt_limits != (0.0, None):
            dt = dt.clamp(*self.dt_limits)
        dt = real.only(dt)  # padding neither enters the state nor decays it
        x = torch.unflatten(x, -1, (self.heads, -1))
        b, c = (torch.unflatten(t, -1, (self.groups, -1)) for t in (b, c))
        state = None if state is None else state.to(wide)
        y, state = ssd(x * dt.to(x.dtype)[..., None], -a_log.to(wide).exp() * dt, b, c, state, self.chunk, known)
        return torch.addcmul(y, x, skip[:, None].to(y.dtype)).flatten(2), state


def wide_of(x: Tensor) -> torch.dtype:
    """Of states and decays: float32 at least."""
    return torch.promote_types(x.dtype, torch.float32)
