"""Kimi delta attention: a gated delta net whose decay is by key feature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.registry.builtin.kda import KIMI_DELTA_ATTENTION
from blockdsl.registry.keywords import parameters, spells
from blockdsl.registry.options import by_name

from ..kernels.scans.decay import wide
from ..kernels.scans.delta import delta_rule
from .causal_conv import CausalConv
from .gdn import decay_parameters, unit
from .init import xavier
from .linear import apply
from .project import init_parts, split_heads
from .real_tokens import RealTokens
from .state import LayerState

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from blockdsl.signatures import KimiDeltaAttentionOptions


class KimiDeltaAttention(nn.Module):
    """Kimi delta attention (Kimi Team, arXiv:2510.26692).

    Args:
        dim: features of the stream.
        options: of the block kind `kda`: heads, dim_head, kernel, ...; see `blockdsl.registry.builtin`.

    Attributes:
        to_low_rank: rows of what `to_decay` and `to_gate` read.
        A_log: (heads,); the log decay of a feature is -exp(A_log) · softplus(decay + dt_bias).
        dt_bias: (heads · dim_head,)

    Raises:
        TypeError: an unknown option; the message names the nearest one.
        ValueError: a value out of range, or options that clash.
    """

    @spells(parameters(by_name(KIMI_DELTA_ATTENTION.options)))
    def __init__(self, dim: int, **options: Unpack[KimiDeltaAttentionOptions]) -> None:
        super().__init__()
        o = KIMI_DELTA_ATTENTION.complete(dim, options, f"{type(self).__name__}()")
        self.heads, features = o.heads, o.heads * o.dim_head
        self.sizes = (features,) * 3
        self.to_qkv = nn.Linear(dim, 3 * features, bias=False)
        self.to_low_rank = nn.Linear(dim, 2 * o.dim_head, bias=False)
        self.to_beta = nn.Linear(dim, o.heads, bias=False)
        self.to_decay = nn.Linear(o.dim_head, features, bias=False)
        self.to_gate = nn.Linear(o.dim_head, features, bias=False)
        self.conv = CausalConv(3 * features, o.kernel, bias=False)
        self.A_log, self.dt_bias = decay_parameters(o.heads, features)
        self.norm = nn.RMSNorm(o.dim_head, o.out_norm_eps)
        self.to_out = nn.Linear(features, dim, bias=False)

    def init_xavier(self, gain: float) -> None:
        """Xavier normal weights, with this gain for values and the output."""
        init_parts(self.to_qkv, self.sizes, gain)
        for linear in self.to_low_rank, self.to_beta, self.to_decay, self.to_gate:
            xavier(linear.weight)
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
        qkv = F.silu(self.conv(apply(self.to_qkv, x), real, cache))
        q, k, v = (split_heads(t, self.heads) for t in qkv.split_with_sizes(self.sizes, dim=-1))
        decay, gate = apply(self.to_low_rank, x).chunk(2, dim=-1)
        rows, rate, bias = wide(apply(self.to_decay, decay), self.A_log, self.dt_bias)
        # before heads are split: torch.compile traces other strides of softplus' gradient than it has
        g = -rate.exp()[:, None, None] * split_heads(F.softplus(rows + bias), self.heads)
        out, state = delta_rule(
            unit(q) * q.shape[-1] ** -0.5,
            unit(k),
            v,
            real.only(g.transpose(1, 2)).transpose(1, 2),
            real.only(apply(self.to_beta, x).sigmoid()).transpose(1, 2),
            None if cache is None else cache.read("state"),
        )
        if cache is not None:
            cache.write("state", state)
        out = self.norm(out.transpose(1, 2)).flatten(2) * apply(self.to_gate, gate).sigmoid()
        return real.back(apply(self.to_out, out))
