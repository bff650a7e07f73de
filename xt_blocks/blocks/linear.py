"""The linear map that blocks are made of, and the choice of its kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import onednn

MANY_PRODUCTS = 2**21
"""From so many on, of a row's features with all rows and outputs, oneDNN is the faster one, with gradients too."""

LARGE = 2**18
"""Elements of a weight, 1 MB, which no small cache holds: from there on oneDNN reads it faster even for one row."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` of `x: (..., in)` and `weight: (out, in)`, by the faster of torch's kernels for float32.

    `torch.backends.mkldnn.flags(enabled=False)` keeps it from oneDNN.
    """
    if onednn.BEATS_MKL and onednn.plain(x, weight) and x.dtype == torch.float32:
        trains = torch.is_grad_enabled()
        pays = x.numel() * weight.shape[0] >= MANY_PRODUCTS or (not trains and weight.numel() >= LARGE)
        if pays and onednn.takes(x, weight, bias):
            return onednn.linear(x, weight, bias) if trains else onednn.run(x, weight, bias)
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """An `nn.Linear` that runs by `linear`.

    A tool that goes by the exact type, as torch.ao.quantization.quantize_dynamic does, finds it after
    `module.__class__ = nn.Linear`, which changes nothing else.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., in)` → (..., out)."""
        return linear(x, self.weight, self.bias)
