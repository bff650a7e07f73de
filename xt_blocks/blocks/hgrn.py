"""HGRN2: linear attention whose keys are what its forget gates leave."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.registry.builtin.hgrn import HGRN
from blockdsl.registry.keywords import parameters, spells
from blockdsl.registry.options import by_name

from ..kernels.scans.decay import wide
from ..kernels.scans.gla import gated_linear_attention
from .init import xavier
from .linear import apply
from .norms import RMSNorm
from .part import LayerPart
from .project import init_parts, split_heads
from .real_tokens import RealTokens
from .state import LayerState

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from blockdsl.signatures import Hgrn2Options


class HGRN2(nn.Module):
    """Gated recurrence with an expanded state (Qin et al., arXiv:2404.07904).

    Each key feature of a head has a forget gate f: its row of the state is kept by f, and gets the value times 1 - f.

    Args:
        dim: features of the stream.
        options: of the block kind `hgrn`: heads, dim_head, lower_bound, ...; see `blockdsl.registry.builtin`.

    Attributes:
        to_qfv: rows of the queries, forget gates and values.

    Raises:
        TypeError: an unknown option; the message names the nearest one.
        ValueError: a value out of range, or options that clash.
    """

    @spells(parameters(by_name(HGRN.options)))
    def __init__(self, dim: int, **options: Unpack[Hgrn2Options]) -> None:
        super().__init__()
        o = HGRN.complete(dim, options, f"{type(self).__name__}()")
        self.heads, self.lower_bound = o.heads, o.lower_bound
        self.sizes = o.heads * o.dim_head, o.heads * o.dim_head, o.heads * o.value_dim_head
        self.to_qfv = nn.Linear(dim, sum(self.sizes), bias=False)
        self.norm = RMSNorm(self.sizes[2], o.out_norm_eps)
        self.to_out = nn.Linear(self.sizes[2], dim, bias=False)

    def take_part(self, part: LayerPart) -> None:
        """Norm the outputs of all heads, of which these are a part."""
        self.norm.part = part

    def init_xavier(self, gain: float) -> None:
        """Xavier normal weights, with this gain for values and the output."""
        init_parts(self.to_qfv, self.sizes, gain)
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
        q, forget, v = apply(self.to_qfv, x).split_with_sizes(self.sizes, dim=-1)
        (forget,) = wide(forget)
        kept = F.logsigmoid(forget)
        if self.lower_bound:
            kept = torch.logaddexp(kept + math.log1p(-self.lower_bound), kept.new_full((), math.log(self.lower_bound)))
        k = (1 - self.lower_bound) * torch.sigmoid(-forget)
        q, k, v, g = (split_heads(t, self.heads) for t in (F.silu(q), real.only(k), v, real.only(kept)))
        out, state = gated_linear_attention(q, k, v, g, None if cache is None else cache.read("state"))
        if cache is not None:
            cache.write("state", state)
        return real.back(apply(self.to_out, self.norm(out.transpose(1, 2).flatten(2))))
