"""The gated delta net: linear attention whose state each token corrects and decays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.registry.builtin.gdn import GATED_DELTA_NET
from blockdsl.registry.keywords import parameters, spells
from blockdsl.registry.options import by_name

from ..kernels.request import repeat_heads
from ..kernels.scans.decay import wide
from ..kernels.scans.delta import delta_rule
from .causal_conv import CausalConv
from .init import xavier, xavier_parts
from .linear import apply
from .project import split_heads
from .real_tokens import RealTokens
from .state import LayerState

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from blockdsl.signatures import GatedDeltaNetOptions


class GatedDeltaNet(nn.Module):
    """Gated delta net (Yang et al., arXiv:2412.06464), with heads as in Qwen3-Next.

    Args:
        dim: features of the stream.
        options: of the block kind `gdn`: heads, dim_head, value_heads, ...; see `blockdsl.registry.builtin`.

    Attributes:
        to_qkvg: rows of the queries, keys, values and of the gate.
        to_beta_decay: rows of β and of the decay, one a head each.
        A_log, dt_bias: (value_heads,); the log decay is -exp(A_log) · softplus(decay + dt_bias).

    Raises:
        TypeError: an unknown option; the message names the nearest one.
        ValueError: a value out of range, or options that clash.
    """

    @spells(parameters(by_name(GATED_DELTA_NET.options)))
    def __init__(self, dim: int, **options: Unpack[GatedDeltaNetOptions]) -> None:
        super().__init__()
        o = GATED_DELTA_NET.complete(dim, options, f"{type(self).__name__}()")
        self.heads, self.value_heads, self.neg_eigval = o.heads, o.value_heads, o.neg_eigval
        keys, values = o.heads * o.dim_head, o.value_heads * o.value_dim_head
        self.sizes = keys, keys, values
        self.to_qkvg = nn.Linear(dim, 2 * keys + 2 * values, bias=False)
        self.to_beta_decay = nn.Linear(dim, 2 * o.value_heads, bias=False)
        self.conv = CausalConv(2 * keys + values, o.kernel, bias=False)
        self.A_log, self.dt_bias = decay_parameters(o.value_heads, o.value_heads)
        self.norm = nn.RMSNorm(o.value_dim_head, o.out_norm_eps)
        self.to_out = nn.Linear(values, dim, bias=False)

    def init_xavier(self, gain: float) -> None:
        """Xavier normal weights, with this gain for values, their gate, and the output."""
        xavier_parts(self.to_qkvg, (*self.sizes, self.sizes[2]), (1.0, 1.0, gain, gain))
        xavier(self.to_beta_decay.weight)
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
        x = real.first(x)
        qkv, gate = apply(self.to_qkvg, x).split_with_sizes((sum(self.sizes), self.sizes[2]), dim=-1)
        beta, decay = apply(self.to_beta_decay, x).chunk(2, dim=-1)
        q, k, v = F.silu(self.conv(qkv, real, cache)).split_with_sizes(self.sizes, dim=-1)
        repeats = self.value_heads // self.heads
        q, k = (repeat_heads(unit(split_heads(t, self.heads)), repeats) for t in (q, k))
        beta = beta.sigmoid() * (2 if self.neg_eigval else 1)
        g = log_decay(decay, self.A_log, self.dt_bias)
        out, state = delta_rule(
            q * q.shape[-1] ** -0.5,
            k,
            split_heads(v, self.value_heads),
            real.only(g).transpose(1, 2)[..., None],
            real.only(beta).transpose(1, 2),
            None if cache is None else cache.read("state"),
        )
        if cache is not None:
            cache.write("state", state)
        out = self.norm(out.transpose(1, 2)).flatten(2) * F.silu(gate)
        return real.back(apply(self.to_out, out))


def decay_parameters(heads: int, steps: int) -> tuple[nn.Parameter, nn.Parameter]:
    """A_log: (heads,), of rates from 0 to 16; dt_bias: (steps,), whose softplus is from 0.001 to 0.1 (Mamba-2)."""
    log_rate, bias = nn.Parameter(torch.empty(heads)), nn.Parameter(torch.empty(steps))
    with torch.no_grad():
        log_rate.uniform_(0.01, 16).log_()
        step = bias.uniform_(math.log(0.001), math.log(0.1)).exp_()
        bias.add_((-torch.expm1(-step)).log_())
    return log_rate, bias


def log_decay(x: Tensor, log_rate: Tensor, bias: Tensor) -> Tensor:
    """-exp(log_rate) · softplus(x + bias), in float32 at least; the last axes are alike."""
    x, log_rate, bias = wide(x, log_rate, bias)
    return -log_rate.exp() * F.softplus(x + bias)


def unit(x: Tensor) -> Tensor:
    """Of length one over the last axis, in float32 at least; zeros stay zeros."""
    (x,) = wide(x)
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)
