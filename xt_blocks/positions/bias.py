"""Biases of attention scores by relative position: each is a function of the distance from key to query.

Axes: h heads. A distance is the query's position minus the key's: positive for the past. Distances and what is
computed from them are float32 or better, whatever the module's dtype: in low precision, large distances become equal.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks.part import LayerPart
from ..kernels.hooks import unhooked


class T5Bias(nn.Module):
    """A learned value for each head and bucket of distances, the near ones exact, the far ones by logarithm.

    Raffel et al., arXiv:1910.10683.

    Args:
        heads: attention heads.
        causal: whether all buckets are for the past.
        buckets: number of buckets.
        max_distance: all distances from here on share a bucket.
        scale: factor of the learned values.
    """

    def __init__(self, heads: int, causal: bool, buckets: int, max_distance: int, scale: float) -> None:
        super().__init__()
        self.causal, self.max_distance, self.scale = causal, max_distance, scale
        self.buckets = nn.Embedding(buckets, heads)

    def forward(self, distance: Tensor) -> Tensor:
        """`distance: (...)` int → (..., h)."""
        values = self.buckets(self.bucket(distance))
        return values.to(_precise(values.dtype)) * self.scale

    def bucket(self, distance: Tensor) -> Tensor:
        """`distance: (...)` int → (...) int, which bucket it falls into."""
        count = self.buckets.num_embeddings // (1 if self.causal else 2)
        side = torch.zeros_like(distance) if self.causal else count * (distance < 0)
        distance = distance.clamp(min=0) if self.causal else distance.abs()
        exact = count // 2
        share = (distance.clamp(min=1).float() / exact).log() / math.log(self.max_distance / exact)
        far = (exact + (share * (count - exact)).long()).clamp(max=count - 1)
        return side + torch.where(distance < exact, distance, far)


class DynamicBias(nn.Module):
    """A small network from distance to a bias for each head.

    Wang et al. (CrossFormer), arXiv:2108.00154; with the logarithm of the distance Liu et al. (Swin v2),
    arXiv:2111.09883.

    Args:
        heads: attention heads.
        hidden: features of its layers.
        depth: hidden layers.
        log_distance: read sign(distance) · log(1 + |distance|).
        norm: LayerNorm after each hidden layer.
    """

    def __init__(self, heads: int, hidden: int, depth: int = 2, log_distance: bool = False, norm: bool = False) -> None:
        super().__init__()
        self.log_distance = log_distance
        self.layers = nn.ModuleList(nn.Linear(hidden if i else 1, hidden) for i in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) if norm else nn.Identity() for _ in range(depth))
        self.to_bias = nn.Linear(hidden, heads)

    def forward(self, distance: Tensor) -> Tensor:
        """`distance: (...)` int → (..., h)."""
        x = distance.to(_precise(_dtype(self)))[..., None]
        if self.log_distance:
            x = x.sign() * x.abs().log1p()
        with torch.autocast(distance.device.type, enabled=False):
            for layer, norm in zip(self.layers, self.norms, strict=True):
                x = F.silu(_precise_call(norm, _precise_call(layer, x)))
            return _precise_call(self.to_bias, x)


class ALiBi(nn.Module):
    """A bias that decreases linearly with distance in either direction, each head with its own slope.

    Press et al., arXiv:2108.12409.

    Args:
        heads: attention heads; those after the first `biased` have no bias.
        biased: heads with a slope.
        learned: learn the slopes, as logarithms.
        scale: factor of the bias.
    """

    def __init__(self, heads: int, biased: int, learned: bool = False, scale: float = 1.0) -> None:
        super().__init__()
        self.heads, self.unbiased, self.scale = heads, heads - biased, scale
        log_slopes = [math.log(slope) for slope in slopes(biased)]
        self.log_slopes = nn.Parameter(torch.tensor(log_slopes)[:, None, None]) if learned else None
        self.fixed = tuple(log_slopes)

    def take_part(self, part: LayerPart) -> None:
        """Have the fixed slopes of these heads among all."""
        own, first = len(self.fixed), part.index * len(self.fixed)
        self.fixed = tuple(math.log(slope) for slope in slopes(part.count * own)[first : first + own])

    def forward(self, distance: Tensor) -> Tensor:
        """`distance: (...)` int → (..., h)."""
        if self.log_slopes is None:
            log_slopes = torch.tensor(self.fixed, device=distance.device, dtype=torch.float32)
        else:
            log_slopes = self.log_slopes.flatten().to(_precise(self.log_slopes.dtype))
        return F.pad(-distance.abs()[..., None] * (log_slopes.exp() * self.scale), (0, self.unbiased))


def slopes(heads: int) -> list[float]:
    """2^(-8/n), 2^(-16/n), ... for n heads, a power of two; otherwise followed by every other one of the next power."""
    n = 2 ** int(math.log2(heads))
    powers = [2 ** (-8 * (i + 1) / n) for i in range(n)]
    between = [2 ** (-4 * (2 * i + 1) / n) for i in range(heads - n)]
    return powers + between


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _precise_call(module: nn.Module, x: Tensor) -> Tensor:
    """The module on `x`, in the dtype of x, whatever that of its parameters; a hooked module is called as it is."""
    dtype = _dtype(module, x.dtype)
    if dtype == x.dtype or not all(map(unhooked, module.modules())):
        out: Tensor = module(x.to(dtype))
        return out.to(x.dtype)
    exact = {name: parameter.to(x.dtype) for name, parameter in module.named_parameters()}
    return torch.func.functional_call(module, exact, (x,))


def _dtype(module: nn.Module, without: torch.dtype = torch.float32) -> torch.dtype:
    """The dtype of its parameters; int8 layers have none, and take float32."""
    for parameter in module.parameters():  # torch 2.7 compiles no `next`
        return parameter.dtype
    return without
