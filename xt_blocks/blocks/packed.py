"""Weights packed for the CPU's matrix kernels, to run a model faster.

    pack(model)      # without gradients its linear layers run on packed weights
    unpack(model)    # undo it

Each linear layer keeps a copy of its weight in the blocked layout that oneDNN reads fastest. It is made at the first
use, and again after the weight has changed. Parameters, state-dict keys, ties and copies stay as they are. Training,
which changes a weight after every use, uses the weight itself.
"""

from __future__ import annotations

from functools import cache
from itertools import count
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import compat, onednn, ops
from ..kernels.hooks import unhooked
from .embedding import Embedding
from .linear import linear

M = TypeVar("M", bound=nn.Module)


def pack(model: M) -> M:
    """Run the linear layers of a model on packed weights on the CPU, in place; returns the model.

    This is used without gradients, in float32, and in bfloat16 and float16 if the CPU has instructions for them:
    `pack(model.to(torch.bfloat16))`. Everything else runs as before, as does everything on a torch without oneDNN.
    Packed weights double the bytes of the weights.

    A change of the weights is detected: a pass with gradients, an optimiser's step, `load_state_dict`, `to`, a new
    parameter, any in-place operation. A write that torch itself does not see, through `weight.data` or a NumPy view
    between two passes without gradients, is not: call `pack` again after it.

    Args:
        model: any module. Its `nn.Linear`s are packed, and a tied embedding that computes the logits.

    Raises:
        TypeError: it is not a module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"pack() takes a model, a torch module, not {type(model).__name__}")
    _count_steps()
    for module in model.modules():
        for packed, plain in _CLASSES.items():
            if type(module) in (plain, packed):
                module._packed = _Packed()  # type: ignore[assignment]  # first: another thread may run the model
                module.__class__ = packed
    return model


def unpack(model: M) -> M:
    """Undo `pack`, in place; returns the model."""
    for module in model.modules():
        if type(module) in _CLASSES:
            module.__class__ = _CLASSES[type(module)]
            del module._packed
    return model


class _Made(NamedTuple):
    """A packed copy, or None, and what it was made from.

    Attributes:
        weight, bias: the parameters.
        state: changes when they change.
        sources: share their storage, and so keep it from being reused.
    """

    weight: Tensor
    bias: Tensor | None
    state: tuple[int, ...]
    sources: tuple[Tensor, ...]
    copy: Tensor | None


def _made(weight: Tensor, bias: Tensor | None) -> _Made:
    sources = (weight.detach(),) if bias is None else (weight.detach(), bias.detach())
    return _Made(weight, bias, _state(weight, bias), sources, _packed(sources[0]))


def _state(weight: Tensor, bias: Tensor | None) -> tuple[int, ...]:
    return weight.data_ptr(), 0 if bias is None else bias.data_ptr(), compat.version(weight), _steps


class _Packed:
    """The packed copy of one weight. A copied or unpickled module starts without one."""

    def __init__(self) -> None:
        self.made: _Made | None = None
        self.key = next(_KEYS)
        _ALL[self.key] = self

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`F.linear`."""
        copy = self.of(x, weight, bias)
        return self._unpacked(x, weight, bias) if copy is None else onednn.run(x, copy, bias)

    def of(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        """The packed weight to multiply x by, before the bias is added; None: x cannot use it."""
        if torch.is_grad_enabled() or not onednn.are_plain(x, weight) or not onednn.reads(x, weight):
            return None
        if onednn.MKL_READS_FASTER and x.dtype == torch.float32 and x.numel() == x.shape[-1]:
            return None
        made = self.made  # read and written in one go: another thread may run the model too
        known = made is not None and made.weight is weight and made.bias is bias
        if made is None or not known or made.state != _state(weight, bias):
            # inference mode does not count changes of a weight created in it
            if weight.is_inference() or not onednn.has(weight, bias):
                return None
            made = self.made = _made(weight, bias)
        return made.copy

    def _unpacked(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Without the copy; in a compiled graph, by a single operator that calls `linear` when it runs."""
        if not torch.compiler.is_compiling():
            if torch.is_grad_enabled():
                self.made = None  # training, which changes the weight
            return linear(x, weight, bias)
        fits = x.device.type == "cpu" and x.dtype == weight.dtype and x.ndim > 1 and type(weight) is nn.Parameter
        if torch.is_grad_enabled() or not fits or torch.compiler.is_exporting() or torch.is_autocast_enabled("cpu"):
            return linear(x, weight, bias)
        out: Tensor = _PACKED_LINEAR(x, weight, bias, self.key)
        return out

    def __reduce__(self) -> tuple[type[_Packed], tuple[()]]:
        return _Packed, ()


_KEYS = count()
_ALL: WeakValueDictionary[int, _Packed] = WeakValueDictionary()


def _run_of(x: Tensor, weight: Tensor, bias: Tensor | None, key: int) -> Tensor:
    packed = _ALL.get(key)
    return F.linear(x, weight, bias) if packed is None else packed.linear(x, weight, bias)


def _shape_of(x: Tensor, weight: Tensor, bias: Tensor | None, key: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


_PACKED_LINEAR = ops.define(
    "packed_linear(Tensor x, Tensor weight, Tensor? bias, int key) -> Tensor", _run_of, _shape_of
)


def _packed(weight: Tensor) -> Tensor | None:
    """The weight (out, in) in the kernels' layout; None if there is none for it."""
    reorder = compat.reorder_linear_weight
    if reorder is None or not compat.SEES_CHANGES or not compat.onednn_supports(weight.dtype) or 0 in weight.shape:
        return None
    try:
        packed: Tensor = reorder(weight)
    except RuntimeError:  # this CPU's oneDNN cannot pack it
        return None
    return packed


class PackedLinear(nn.Linear):
    """What `pack` makes of an `nn.Linear`."""

    _packed: _Packed

    def forward(self, x: Tensor) -> Tensor:
        packed = vars(self).get("_packed")  # gone when another thread has just unpacked it
        return linear(x, self.weight, self.bias) if packed is None else packed.linear(x, self.weight, self.bias)

    def activated(self, x: Tensor, activation: str) -> Tensor | None:
        """`forward` and an activation in one pass; None: not available, or a hook would miss it."""
        bias = self.bias
        packed = vars(self).get("_packed")
        copy = packed.of(x, self.weight, bias) if packed is not None and activation in onednn.ACTIVATIONS else None
        if copy is None or not unhooked(self):
            return None
        return onednn.run(x, copy, bias, onednn.ACTIVATIONS[activation])


class _PackedEmbedding(Embedding):
    _packed: _Packed

    def scores(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return self._packed.linear(x, self.weight, bias)


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    PackedLinear: nn.Linear,
    _PackedEmbedding: Embedding,
}

_steps = 0
"""Steps of all optimisers: fused ones change weights without torch counting it."""


@cache
def _count_steps() -> None:
    def stepped(*_: Any) -> None:
        global _steps
        _steps += 1

    compat.after_each_step(stepped)
