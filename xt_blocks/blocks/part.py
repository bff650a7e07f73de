"""What a layer knows of being one rank's part of a whole one, under tensor parallelism.

Most layers need not know. One whose arithmetic depends on which heads it has, or that needs a sum over the features of
all ranks, has a method `take_part(part)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def _itself(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class LayerPart:
    """One of the parts of a layer.

    Attributes:
        index: which, counted from 0.
        count: of all parts, which are alike in size.
        total: the sum of a tensor over all parts, which each of them gets; it has a gradient.
    """

    index: int = 0
    count: int = 1
    total: Callable[[Tensor], Tensor] = _itself

    def __deepcopy__(self, memo: dict[int, Any]) -> LayerPart:  # what sums over ranks cannot be copied
        return self


ALONE = LayerPart()
"""The whole layer."""


def rms_norm(x: Tensor, gain: Tensor | None, eps: float, part: LayerPart) -> Tensor:
    """RMSNorm over the features of all parts, of which `x: (..., features)` has its own."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    mean = part.total(wide.square().sum(dim=-1, keepdim=True)) / (x.shape[-1] * part.count)
    out = (wide * torch.rsqrt(mean + eps)).to(x.dtype)
    return out if gain is None else out * gain


def layer_norm(x: Tensor, gain: Tensor, bias: Tensor, eps: float, part: LayerPart) -> Tensor:
    """LayerNorm over the features of all parts, of which `x: (..., features)` has its own."""
    wide, features = x.to(torch.promote_types(x.dtype, torch.float32)), x.shape[-1] * part.count
    wide = wide - part.total(wide.sum(dim=-1, keepdim=True)) / features
    variance = part.total(wide.square().sum(dim=-1, keepdim=True)) / features
    return (wide * torch.rsqrt(variance + eps)).to(x.dtype) * gain + bias
