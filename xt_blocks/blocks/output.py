"""From the weighted sums of values back to the stream: the steps in between, and the output projection.

Axes: b batch, n tokens, h heads, d features of a value.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.registry.builtin.gates import Gate, gates

from ..kernels.request import repeat_heads
from .dropout import FeatureDropout
from .init import xavier
from .linear import apply
from .project import split_heads


class Output(nn.Module):
    """The steps after the attention core, each if its option is on.

    tensor_product            multiply by another projection of the input, and add (arXiv:2208.06061)
    head_scale                a learned gain for each head (NormFormer, arXiv:2110.09456)
    gate_value_heads          a sigmoid gate of each head by the input (arXiv:2306.12929)
    gate_values               a gate by the input (AlphaFold 2, doi:10.1038/s41586-021-03819-2), of each feature
                              or, with gate_values_headwise, of each head
    output_gate               the same by what the heads give (HyGA, arXiv:2608.11805); of both, one gate of their sum
    on_attn                   attention on attention: the last layer is a GLU (arXiv:1908.06954)
    sublayer_dropout          dropout of what it gives (arXiv:1706.03762)
    zero_init_branch_output   the last layer starts at zero, and the block as the identity

    Args:
        o: the options of an attention block.
    """

    def __init__(self, o: Any) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.on_attn = o.heads, o.kv_heads, o.on_attn
        inner = o.heads * o.value_dim_head
        relation = o.kv_heads * o.value_dim_head
        self.to_relation = nn.Linear(o.dim_in, relation, bias=False) if o.tensor_product else None
        self.head_scale = nn.Parameter(torch.ones(o.heads, 1, 1)) if o.head_scale else None
        made = {gate.name: _gate(gate, o.low_rank_silu_gates) for gate in gates(o)}
        self.to_gate, self.to_output_gate = made.get("to_gate"), made.get("to_output_gate")
        self.to_head_gate = made.get("to_head_gate")
        self.activation = F.silu if o.swiglu_values else torch.sigmoid
        self.to_out = nn.Linear(inner, 2 * o.dim if o.on_attn else o.dim, bias=o.out_bias)
        self.sublayer_dropout = FeatureDropout(o.sublayer_dropout) if o.sublayer_dropout else None
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
            own = split_heads(apply(self.to_relation, x), self.kv_heads)
            relation = repeat_heads(own, self.heads // self.kv_heads)
            values = values * relation + values
        if self.head_scale is not None:
            values = values * self.head_scale
        values = values.transpose(1, 2)
        if self.to_head_gate is not None:
            values = values * apply(self.to_head_gate, x).sigmoid()[..., None]
        merged = values.flatten(2)
        gates = [] if self.to_gate is None else [apply(self.to_gate, x)]
        gates += [] if self.to_output_gate is None else [apply(self.to_output_gate, merged)]
        if gates:
            gate = self.activation(reduce(add, map(self._by_head, gates)))
            merged = (self._by_head(merged) * gate).flatten(2)
        out = apply(self.to_out, merged)
        out = nn.functional.glu(out, dim=-1) if self.on_attn else out
        return out if self.sublayer_dropout is None else self.sublayer_dropout(out)

    def _by_head(self, x: Tensor) -> Tensor:
        """(b, n, h·d) → (b, n, h, d); d is 1 of a gate of each head."""
        return torch.unflatten(x, -1, (self.heads, -1))


class LowRankGate(nn.Module):
    """Two linear layers with few features in between, and silu there.

    Args:
        silu: whether; without, they are one matrix of low rank.
    """

    def __init__(self, reads: int, rank: int, gives: int, bias: bool, silu: bool) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(reads, rank, bias=False), nn.Linear(rank, gives, bias=bias)
        self.silu = silu

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., reads)` → (..., gives)."""
        hidden = apply(self.down, x)
        return apply(self.up, F.silu(hidden) if self.silu else hidden)


def _gate(gate: Gate, silu: bool) -> nn.Module:
    """Its logits are the same for all inputs at first: a bias that leaves it open, or none."""
    name, reads, gives, rank, bias = gate
    made = nn.Linear(reads, gives, bias=bias) if rank is None else LowRankGate(reads, rank, gives, bias, silu)
    last = made.up if isinstance(made, LowRankGate) else made
    nn.init.zeros_(last.weight)
    if last.bias is not None:
        nn.init.constant_(last.bias, 10.0 if name == "to_head_gate" else 1.0)
    return made
