"""Linear layers: the choice of their kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import onednn
from ..kernels.hooks import unhooked

MANY_PRODUCTS = 2**21
"""From this many products (rows × inputs × outputs), oneDNN is faster, with gradients too."""

LARGE = 2**18
"""Elements of a weight, 1 MB, more than a small cache: from here on oneDNN reads it faster even for one row."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` of `x: (..., in)` and `weight: (out, in)`, by the faster of torch's kernels for float32.

    `torch.backends.mkldnn.flags(enabled=False)` turns oneDNN off.
    """
    if onednn.BEATS_MKL and torch.compiler.is_compiling():
        out = onednn.compiled_linear(x, weight, bias) if weight.numel() >= LARGE else None
        return F.linear(x, weight, bias) if out is None else out
    if onednn.BEATS_MKL and onednn.are_plain(x, weight) and x.dtype == torch.float32:
        trains, products = torch.is_grad_enabled(), x.numel() * weight.shape[0]
        if trains:
            pays = products >= MANY_PRODUCTS and x.numel() > onednn.FEW // 2 * weight.shape[-1]
        else:
            pays = products >= MANY_PRODUCTS or weight.numel() >= LARGE
        if pays and onednn.takes(x, weight, bias):
            return onednn.linear(x, weight, bias) if trains else onednn.run(x, weight, bias)
    return F.linear(x, weight, bias)


def apply(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer(x)`; for an unhooked `nn.Linear` by `linear`, which gives the same up to rounding.

    Blocks use plain `nn.Linear`s, which tools that replace, quantise or shard linear layers find by their type.
    """
    if onednn.BEATS_MKL and type(layer) is nn.Linear and unhooked(layer):
        return linear(x, layer.weight, layer.bias)
    out: Tensor = layer(x)
    return out


def apply_from(layer: nn.Module, x: Tensor, start: int) -> Tensor:
    """`layer(x)[..., start:]`; for an unhooked `nn.Linear` without computing the rest."""
    if isinstance(layer, nn.Linear) and unhooked(layer):
        return linear(x, layer.weight[start:], None if layer.bias is None else layer.bias[start:])
    out: Tensor = layer(x)
    return out[..., start:]
