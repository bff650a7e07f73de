"""The linear map that blocks are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import onednn


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` of `x: (..., in)` and `weight: (out, in)`, without gradients by the fastest of torch's kernels."""
    if onednn.BEATS_MKL and not torch.is_grad_enabled() and x.dtype == torch.float32 and onednn.takes(x, weight):
        return onednn.run(x, weight, bias)
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """An `nn.Linear` that runs by `linear`. `torch.backends.mkldnn.flags(enabled=False)` keeps it from oneDNN."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
