"""Normalisation layers, as the graph's nodes say them."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.registry.norms import Norm

from .linear import apply
from .part import ALONE, layer_norm, rms_norm


class ScaleNorm(nn.Module):
    """A learned length for every token (Nguyen & Salazar, arXiv:1910.05895).

    The paper's gain is `weight`·√dim, so that features initially have unit mean square at any width.

    Args:
        eps: added to the mean square.
        gain: whether it is learned; else it is one.
        unit_offset: `weight` is the gain less one.
    """

    def __init__(self, dim: int, eps: float = 1e-8, gain: bool = True, unit_offset: bool = False) -> None:
        super().__init__()
        self.dim, self.eps, self.unit_offset = dim, eps, unit_offset
        self.weight = nn.Parameter(torch.full((1,), 1.0 - unit_offset)) if gain else None

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., dim)` → (..., dim), √dim·x / ‖x‖ times the gain."""
        out = F.rms_norm(x, (self.dim,), eps=self.eps)
        if self.weight is None:
            return out
        return out * (self.weight + 1 if self.unit_offset else self.weight)


class RMSNorm(nn.RMSNorm):
    """torch's own, without gradients on a CPU in fewer operations, whose number a decoding step has to pay for.

    Attributes:
        part: which of the features it has.
    """

    part = ALONE

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., dim)` → (..., dim)"""
        if self.part is not ALONE:
            return rms_norm(x, self.weight, torch.finfo(x.dtype).eps if self.eps is None else self.eps, self.part)
        plain = x.is_cpu and x.dtype in (torch.float32, torch.float64) and not torch.compiler.is_compiling()
        if torch.is_grad_enabled() or not plain:
            return super().forward(x)
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        out = x * x.square().mean(dim=-1, keepdim=True).add_(eps).rsqrt_()
        return out if self.weight is None else out * self.weight


class OffsetRMSNorm(nn.RMSNorm):
    """RMSNorm whose `weight` is the gain less one, so that weight decay pulls it to one (Gemma, arXiv:2403.08295).

    Attributes:
        part: which of the features it has.
    """

    part = ALONE

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., dim)` → (..., dim)"""
        if self.part is not ALONE:
            return rms_norm(x, self.weight + 1, torch.finfo(x.dtype).eps if self.eps is None else self.eps, self.part)
        return F.rms_norm(x, self.normalized_shape, self.weight + 1, self.eps)


class LayerNorm(nn.LayerNorm):
    """torch's own, of which a rank may have some of the features.

    Attributes:
        part: which of the features it has.
    """

    part = ALONE

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., dim)` → (..., dim)"""
        if self.part is ALONE:
            return super().forward(x)
        return layer_norm(x, self.weight, self.bias, self.eps, self.part)


class OffsetLayerNorm(nn.LayerNorm):
    """LayerNorm whose `weight` is the gain less one."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., dim)` → (..., dim)"""
        return F.layer_norm(x, self.normalized_shape, self.weight + 1, self.bias, self.eps)


class Adaptive(nn.Module):
    """A module that reads a condition: it is called with x and that.

    Attributes:
        to_gain: from the condition to what says the gain of each feature.
    """

    to_gain: nn.Linear


class AdaptiveNorm(Adaptive):
    """A norm whose gain is 1 + W·condition; W is zero at first (DiT, Peebles & Xie, arXiv:2212.09748).

    Args:
        plain: the norm, without a gain.
        dim: features.
        condition: features of the condition.
    """

    def __init__(self, plain: nn.Module, dim: int, condition: int) -> None:
        super().__init__()
        self.plain = plain
        self.to_gain = nn.Linear(condition, dim, bias=False)
        nn.init.zeros_(self.to_gain.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """`x: (batch, seq, dim)`, `condition: (batch, 1 or seq, features)` → (batch, seq, dim)."""
        return self.plain(x) * (apply(self.to_gain, condition) + 1)


class AdaptiveLayerScale(Adaptive):
    """σ(W·condition + b) for each feature of a branch; W is zero and b is -2 at first, so that a block starts small.

    DiT's adaLN-Zero (Peebles & Xie, arXiv:2212.09748) starts at zero; x-transformers has this form.

    Args:
        dim: features.
        condition: features of the condition.
    """

    def __init__(self, dim: int, condition: int) -> None:
        super().__init__()
        self.to_gain = nn.Linear(condition, dim)
        nn.init.zeros_(self.to_gain.weight)
        nn.init.constant_(self.to_gain.bias, -2.0)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """`x: (batch, seq, dim)`, `condition: (batch, 1 or seq, features)` → (batch, seq, dim)."""
        return x * apply(self.to_gain, condition).sigmoid()


def norm(spec: Norm | None, dim: int, condition: int = 0) -> nn.Module:
    """LayerNorm (arXiv:1607.06450), RMSNorm (arXiv:1910.07467) or ScaleNorm over the last axis, or none.

    An adaptive one is called with the condition too, which has so many features.
    """
    if spec is None:
        return nn.Identity()
    if spec.adaptive:
        return AdaptiveNorm(norm(replace(spec, name=spec.name.removeprefix("adaptive_")), dim), dim, condition)
    if spec.name == "scalenorm":
        return ScaleNorm(dim, spec.eps, spec.gain, spec.unit_offset)
    if spec.name in ("rmsnorm", "simple_rmsnorm"):
        return (OffsetRMSNorm if spec.unit_offset else RMSNorm)(dim, spec.eps, elementwise_affine=spec.gain)
    make = OffsetLayerNorm if spec.unit_offset else nn.LayerNorm
    module = make(dim, spec.eps, elementwise_affine=spec.gain, bias=spec.bias)
    if spec.bias and not spec.gain:  # torch's has the one with the other alone
        module.bias = nn.Parameter(torch.zeros(dim))
    return module


def adapted(module: nn.Module, x: Tensor, condition: Tensor | None) -> Tensor:
    """What a norm or a layer scale makes of x, by the condition where it reads one.

    Args:
        x: (batch, seq, dim)
        condition: (batch, 1, features) of a row, or (batch, seq or more, features), of which x is the last tokens.
    """
    out: Tensor
    if not isinstance(module, Adaptive):
        out = module(x)
        return out
    assert condition is not None
    of_tokens = condition if condition.shape[1] == 1 else condition[:, condition.shape[1] - x.shape[1] :]
    out = module(x, of_tokens)
    return out


def unit_offset(module: nn.Module) -> bool:
    """Whether the weight of a norm is its gain less one."""
    return isinstance(module, OffsetRMSNorm | OffsetLayerNorm) or getattr(module, "unit_offset", False)
