"""Gated linear attention, and retention: a state to which tokens add and which decays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.registry.builtin.gla import GATED_LINEAR_ATTENTION
from blockdsl.registry.keywords import parameters, spells
from blockdsl.registry.options import by_name

from ..kernels.scans.decay import wide
from ..kernels.scans.gla import gated_linear_attention
from .init import xavier, xavier_parts
from .linear import apply
from .part import LayerPart
from .project import split_heads
from .real_tokens import RealTokens
from .state import LayerState

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from blockdsl.signatures import GatedLinearAttentionOptions


class GatedLinearAttention(nn.Module):
    """Gated linear attention (Yang et al., arXiv:2312.06635); with a fixed decay, retention (arXiv:2307.08621).

    Args:
        dim: features of the stream.
        options: of the block kind `gla`: heads, dim_head, decay, ...; see `blockdsl.registry.builtin`.

    Attributes:
        to_qkvg: rows of the queries, keys, values and of the gate.
        to_decay: the log decay is the logarithm of its output's sigmoid over the temperature; None: it is fixed.
        to_low_rank: what `to_decay` reads; None: the input itself.

    Raises:
        TypeError: an unknown option; the message names the nearest one.
        ValueError: a value out of range, or options that clash.
    """

    @spells(parameters(by_name(GATED_LINEAR_ATTENTION.options)))
    def __init__(self, dim: int, **options: Unpack[GatedLinearAttentionOptions]) -> None:
        super().__init__()
        o = GATED_LINEAR_ATTENTION.complete(dim, options, f"{type(self).__name__}()")
        self.heads, self.temperature, self.first = o.heads, o.decay_temperature, 0
        keys, values = o.heads * o.dim_head, o.heads * o.value_dim_head
        self.sizes = keys, keys, values, values
        self.to_qkvg = nn.Linear(dim, sum(self.sizes), bias=False)
        by_channel = o.decay == "channel"
        self.to_low_rank = nn.Linear(dim, o.decay_rank, bias=False) if by_channel else None
        self.to_decay = None
        if o.decay != "fixed":
            self.to_decay = nn.Linear(o.decay_rank if by_channel else dim, keys if by_channel else o.heads)
        self.norm = nn.RMSNorm(o.value_dim_head, o.out_norm_eps)
        self.to_out = nn.Linear(values, dim, bias=False)

    def take_part(self, part: LayerPart) -> None:
        """Have the fixed decays of these heads among all."""
        self.first = part.index * self.heads

    def init_xavier(self, gain: float) -> None:
        """Xavier normal weights, with this gain for values, their gate, and the output."""
        xavier_parts(self.to_qkvg, self.sizes, (1.0, 1.0, gain, gain))
        for linear in self.to_low_rank, self.to_decay:
            if linear is not None:
                xavier(linear.weight, linear.bias)
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
        q, k, v, gate = apply(self.to_qkvg, x).split_with_sizes(self.sizes, dim=-1)
        g = real.only(self._log_decay(x))
        q, k, v, g = (split_heads(t, self.heads) for t in (q, real.only(k), v, g))
        state = None if cache is None else cache.read("state")
        out, state = gated_linear_attention(q * q.shape[-1] ** -0.5, k, v, g, state)
        if cache is not None:
            cache.write("state", state)
        out = self.norm(out.transpose(1, 2)).flatten(2) * F.silu(gate)
        return real.back(apply(self.to_out, out))

    def _log_decay(self, x: Tensor) -> Tensor:
        """(batch, seq, heads) or (batch, seq, heads · dim_head), in float32 at least."""
        if self.to_decay is None:
            (like,) = wide(x)
            heads = torch.arange(self.first, self.first + self.heads, dtype=like.dtype, device=x.device)
            forgotten = 2.0 ** (-5 - heads)
            return torch.log1p(-forgotten).expand(*x.shape[:2], self.heads)
        low = x if self.to_low_rank is None else apply(self.to_low_rank, x)
        (decay,) = wide(apply(self.to_decay, low))
        return F.logsigmoid(decay) / self.temperature
