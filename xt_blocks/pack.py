"""Weights packed for the CPU's matrix kernels, to run a model faster.

    pack(model)      # its linear maps run on packed weights where no gradients are recorded
    unpack(model)    # and it is what it was

Beside the weight of a linear map stands a copy in the blocked layout that oneDNN reads fastest. It is made at the
first use, and anew once the weight has changed. Parameters, keys of the state dict, ties and copies stay as they are.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .embedding import Embedding

M = TypeVar("M", bound=nn.Module)


def pack(model: M) -> M:
    """Run the linear maps of a model on packed weights, in place; returns the model.

    Packed weights are used on the CPU without gradients, for float32, and for bfloat16 and float16 where the CPU has
    instructions for them: `pack(model.to(torch.bfloat16))`. Everything else, training too, takes the plain way, and a
    torch without oneDNN always does. They take the memory of the weights once more.

    Whatever torch counts as a change is noticed: an optimiser's step, `load_state_dict`, `to`, a new parameter. A
    write past its count, through `weight.data` or a NumPy view, is not: call `pack` again after it.

    Args:
        model: any module. Its `nn.Linear`s are packed, and the embedding whose matrix gives the logits too.
    """
    for module in model.modules():
        for packed, plain in _CLASSES.items():
            if type(module) in (plain, packed):
                module.__class__ = packed
                module._packed = _Packed()  # type: ignore[assignment]
    return model


def unpack(model: M) -> M:
    """Undo `pack`, in place; returns the model."""
    for module in model.modules():
        if type(module) in _CLASSES:
            module.__class__ = _CLASSES[type(module)]
            del module._packed
    return model


class _Packed:
    """The packed copy of one weight. A copy of a module, or what is unpickled, starts without."""

    def __init__(self) -> None:
        self.source: Tensor | None = None  # shares the weight's memory, which so is not given to another
        self.place = self.version = 0
        self.copy: Tensor | None = None

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`F.linear`"""
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or not _usable(x, weight):
            return F.linear(x, weight, bias)
        if self.source is None or weight.data_ptr() != self.place or _version(weight) != self.version:
            self.take(weight)
        return F.linear(x, weight, bias) if self.copy is None else _RUN(x, self.copy, bias, "none", [], "")

    def take(self, weight: Tensor) -> None:
        self.source, self.place, self.version = weight.detach(), weight.data_ptr(), _version(weight)
        self.copy = _packed(self.source)

    def __reduce__(self) -> tuple[type[_Packed], tuple[()]]:
        return _Packed, ()


def _usable(x: Tensor, weight: Tensor) -> bool:
    """Whether the packed kernel takes the place of `F.linear` for these."""
    return (
        type(x) is Tensor
        and type(weight) is nn.Parameter
        and x.dtype == weight.dtype
        and x.device.type == weight.device.type == "cpu"
        and x.ndim > 1
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )


def _version(weight: Tensor) -> int:
    """How often torch has seen the weight change; what inference mode made cannot."""
    return -1 if weight.is_inference() else weight._version


def _packed(weight: Tensor) -> Tensor | None:
    """The weight (out, in) in the kernels' layout; None where there is none for it."""
    supported = _SUPPORTED.get(weight.dtype)
    if supported is None or not supported() or 0 in weight.shape:
        return None
    try:
        return torch.ops.mkldnn._reorder_linear_weight(weight)  # type: ignore[no-any-return]
    except RuntimeError:  # this CPU's oneDNN packs none
        return None


class _PackedLinear(nn.Linear):
    _packed: _Packed

    def forward(self, x: Tensor) -> Tensor:
        return self._packed.linear(x, self.weight, self.bias)


class _PackedEmbedding(Embedding):
    _packed: _Packed

    def scores(self, x: Tensor) -> Tensor:
        return self._packed.linear(x, self.weight, None)


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {_PackedLinear: nn.Linear, _PackedEmbedding: Embedding}

_HAS_ONEDNN = torch.backends.mkldnn.is_available()
_RUN: Any = torch.ops.mkldnn._linear_pointwise.default if _HAS_ONEDNN else None
_SUPPORTED: dict[torch.dtype, Any] = {}
if _HAS_ONEDNN:
    _SUPPORTED = {
        torch.float32: lambda: True,
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
