"""Linear layers and norms, which everything else is made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..blocks.norms import Adaptive, ScaleNorm, unit_offset
from .reader import Reader


def load_norm(module: nn.Module, state: Reader, shifted: bool) -> None:
    """
    Args:
        shifted: the gain is stored minus one.
    """
    if isinstance(module, Adaptive):
        load_linear(module.to_gain, state, "to_gamma")
        return
    parameter: Any = module.weight
    if parameter is None:
        return
    names = ("weight", "gamma") if isinstance(module, nn.LayerNorm) else ("g",)
    gain = state.need(*(names if state.old else names[::-1]), shape=parameter.shape)
    if gain is not None and state.old and isinstance(module, ScaleNorm):
        gain = gain * module.dim**-0.5  # 1.x includes the factor dim^0.5 in its gain
    if gain is not None and shifted != unit_offset(module):
        gain = gain + (1 if shifted else -1)
    state.put(parameter, gain, names[0])
    if isinstance(module, nn.LayerNorm) and module.bias is not None:
        load_bias(module.bias, state, "bias")


def load_linear(module: Any, state: Reader, *names: str) -> None:
    """A linear layer by the first of these names that is there."""
    state.fill(module.weight, *(f"{name}.weight" for name in names))
    if module.bias is not None:
        load_bias(module.bias, state, *(f"{name}.bias" for name in names))


def load_bias(bias: Tensor, state: Reader, *names: str) -> None:
    """A bias; 2.x leaves out many, and ours is zero then."""
    there = any(state.has(name) for name in names)
    state.put(
        bias, torch.zeros_like(bias) if not (there or state.old) else state.need(*names, shape=bias.shape), names[0]
    )
