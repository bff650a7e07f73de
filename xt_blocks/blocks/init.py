"""Xavier initialisation with a gain for what values pass through, as in DeepNet (Wang et al., arXiv:2203.00555)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

CONVOLUTIONS = nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d


@runtime_checkable
class KnowsValues(Protocol):
    """A module that knows which of its matrices values pass through."""

    def init_xavier(self, gain: float) -> None: ...


def init_xavier(module: nn.Module, gain: float) -> None:
    """Initialise the weights of a block's layer: Xavier normal with this gain, biases zero.

    By the layer's own `init_xavier(gain)` if it has one. Otherwise values are assumed to pass through all of its linear
    layers and convolutions.
    """
    if isinstance(module, KnowsValues):
        module.init_xavier(gain)
        return
    if isinstance(module, (nn.Linear, *CONVOLUTIONS)):
        xavier(module.weight, module.bias, gain=gain)
    for child in module.children():
        init_xavier(child, gain)


def xavier(weight: Tensor, bias: Tensor | None = None, gain: float = 1.0) -> None:
    """Fill a matrix and its bias in place: Xavier normal (Glorot & Bengio, AISTATS 2010) and zeros."""
    nn.init.xavier_normal_(weight, gain)
    if bias is not None:
        nn.init.zeros_(bias)


def xavier_parts(layer: nn.Linear, sizes: Sequence[int], gains: Sequence[float]) -> None:
    """Fill a linear layer that makes several parts: each part's rows as a matrix of its own with its gain; zeros."""
    for rows, gain in zip(torch.split(layer.weight.detach(), [*sizes]), gains, strict=True):
        xavier(rows, gain=gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
