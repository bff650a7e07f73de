"""The feedforward block: two linear layers with an activation between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blockdsl.registry.builtin.feedforward import FEEDFORWARD
from blockdsl.registry.keywords import parameters, spells
from blockdsl.registry.options import by_name

from ..kernels.activations import ACTIVATIONS
from .dropout import FeatureDropout
from .init import xavier
from .linear import apply
from .lora import LowRank
from .norms import LayerNorm
from .packed import PackedLinear
from .part import LayerPart

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from blockdsl.signatures import FeedforwardOptions


class FeedForward(nn.Module):
    """Position-wise feedforward.

    Args:
        dim: features of the stream.
        uses: how many blocks share it, each with a low-rank term of its own, with `lora_rank`.
        options: of the block kind `f`: mult, activation, glu, no_bias, dropout, ...; see `blockdsl.registry.builtin`.

    Raises:
        TypeError: an unknown option; the message names the nearest one.
        ValueError: a value out of range, or options that clash.
    """

    @spells(parameters(by_name(FEEDFORWARD.options)))
    def __init__(self, dim: int, *, uses: int = 1, **options: Unpack[FeedforwardOptions]) -> None:
        super().__init__()
        o = FEEDFORWARD.complete(dim, options, f"{type(self).__name__}()", uses)
        self.glu, self.gate_first, self.gate_scale = o.glu, o.gate_first, o.gate_scale
        self.activation = o.activation
        self.to_hidden = nn.Linear(dim, o.inner * (2 if o.glu else 1), bias=not o.no_bias)
        self.lora = None if o.lora_rank is None else LowRank(dim, [self.to_hidden.out_features], o.lora_rank, uses)
        self.mult_bias = nn.Parameter(torch.ones(o.inner)) if o.glu_mult_bias else None
        self.norm = LayerNorm(o.inner) if o.post_act_ln else None
        self.dropout = FeatureDropout(o.dropout)
        self.to_out = nn.Linear(o.inner, dim, bias=not o.no_bias)
        self.sublayer_dropout = FeatureDropout(o.sublayer_dropout) if o.sublayer_dropout else None
        self.zero_init = o.zero_init_branch_output
        if self.zero_init:
            for parameter in self.to_out.parameters():
                nn.init.zeros_(parameter)

    def take_part(self, part: LayerPart) -> None:
        """Norm all hidden features, of which these are a part, and draw for all what is dropped."""
        self.dropout.part = part
        if isinstance(self.norm, LayerNorm):
            self.norm.part = part

    def init_xavier(self, gain: float) -> None:
        """Xavier normal weights with this gain, biases zero; a last layer that starts at zero stays zero."""
        for linear in (self.to_hidden,) if self.zero_init else (self.to_hidden, self.to_out):
            xavier(linear.weight, linear.bias, gain)

    def forward(self, x: Tensor, *, use: int = 0) -> Tensor:
        """`x: (batch, seq, dim)`, in one of its uses → (batch, seq, dim)."""
        if self.glu:
            hidden, gate = self._hidden(x, use).chunk(2, dim=-1)
            if self.gate_first:
                hidden, gate = gate, hidden
            if self.gate_scale != 1:
                gate = gate * self.gate_scale
            hidden = hidden * ACTIVATIONS[self.activation](gate)
            if self.mult_bias is not None:
                hidden = hidden * self.mult_bias
        else:
            to_hidden, alone = self.to_hidden, self.lora is None
            fused = to_hidden.activated(x, self.activation) if alone and type(to_hidden) is PackedLinear else None
            hidden = ACTIVATIONS[self.activation](self._hidden(x, use)) if fused is None else fused
        if self.norm is not None:
            hidden = self.norm(hidden)
        if self.dropout.training:
            hidden = self.dropout(hidden)
        out = apply(self.to_out, hidden)
        return out if self.sublayer_dropout is None else self.sublayer_dropout(out)

    def _hidden(self, x: Tensor, use: int) -> Tensor:
        hidden = apply(self.to_hidden, x)
        return hidden if self.lora is None else hidden + self.lora(x, use)
