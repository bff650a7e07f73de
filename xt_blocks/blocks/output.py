"""From the weighted sums of values back to the stream: the steps in between, and the output projection.

Axes: b batch, n tokens, h heads, d features of a value.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from blockdsl.registry.builtin.gates import gate_features

from ..kernels.request import repeat_heads
from .init import xavier
from .linear import apply
from .project import split_heads


class Output(nn.Module):
    """The steps after the attention core, each if its option is on.

    tensor_product            multiply by another projection of the input, and add (arXiv:2208.06061)
    head_scale                a learned gain for each head (NormFormer, arXiv:2110.09456)
    gate_values               a sigmoid gate by the input (AlphaFold 2, doi:10.1038/s41586-021-03819-2), of each feature
                              or, with gate_values_headwise, of each head
    on_attn                   attention on attention: the last layer is a GLU (arXiv:1908.06954)
    sublayer_dropout          dropout of what it gives (arXiv:1706.03762)
    zero_init_branch_output   the last layer starts at zero, and the block as the identity

    Args:
        o: the options of an attention block.
    """

    def __init__(self, o: Any) -> None:
        super().__init__()
        self.kv_heads, self.repeats, self.on_attn = o.kv_heads, o.heads // o.kv_heads, o.on_attn
        inner = o.heads * o.value_dim_head
        relation = o.kv_heads * o.value_dim_head
        self.to_relation = nn.Linear(o.dim_in, relation, bias=False) if o.tensor_product else None
        self.head_scale = nn.Parameter(torch.ones(o.heads, 1, 1)) if o.head_scale else None
        self.to_gate = nn.Linear(o.dim_in, gates, bias=o.gate_bias) if (gates := gate_features(o)) else None
        if self.to_gate is not None:  # equally open for all inputs at first
            nn.init.zeros_(self.to_gate.weight)
            if self.to_gate.bias is not None:
                nn.init.ones_(self.to_gate.bias)
        self.to_out = nn.Linear(inner, 2 * o.dim if o.on_attn else o.dim, bias=o.out_bias)
        self.sublayer_dropout = nn.Dropout(o.sublayer_dropout) if o.sublayer_dropout else None
        self.zero_init = o.zero_init_branch_output
        if self.zero_init:
            for parameter in self.to_out.parameters():
                nn.init.zeros_(parameter)

    def init_xavier(self, gain: float) -> None:
        """Xavier normal weights, the last layer's with this gain; a gate or zero-initialised layer is left alone."""
        if self.to_relation is not None:
            xavier(self.to_relation.weight)
        if not self.zero_init:
            xavier(self.to_out.weight, self.to_out.bias, gain)

    def forward(self, values: Tensor, x: Tensor) -> Tensor:
        """`values: (b, h, n, d)`, `x: (b, n, dim_in)`, what the block reads → (b, n, dim)."""
        if self.to_relation is not None:
            relation = repeat_heads(split_heads(apply(self.to_relation, x), self.kv_heads), self.repeats)
            values = values * relation + values
        if self.head_scale is not None:
            values = values * self.head_scale
        merged = values.transpose(1, 2).flatten(2)
        if self.to_gate is not None:
            gate = apply(self.to_gate, x).sigmoid()
            of_each = torch.unflatten(merged, -1, (gate.shape[-1], -1))  # of a feature, or of all of a head
            merged = (of_each * gate[..., None]).flatten(-2)
        out = apply(self.to_out, merged)
        out = nn.functional.glu(out, dim=-1) if self.on_attn else out
        return out if self.sublayer_dropout is None else self.sublayer_dropout(out)
