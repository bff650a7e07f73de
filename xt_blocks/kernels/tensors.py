"""What a caller gives as a tensor: whether it is one, of a type and on a device that fit. Computes nothing.

Types are changed where that is harmless: whole numbers of any type are tokens and positions, and vectors of another
type are those of the weights. Anything else is refused, by the name of the argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_NAMES = ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64")
WHOLE = frozenset(getattr(torch, name) for name in _NAMES if hasattr(torch, name))


def check_tensor(name: str, value: Any, beside: Tensor | None = None) -> None:
    """Judge an argument.

    Args:
        beside: a tensor that it has to be on the same device as.

    Raises:
        TypeError: it is no tensor.
        ValueError: it is on another device.
    """
    if not isinstance(value, Tensor):
        hint = f"; torch.tensor({name}) makes one" if hasattr(value, "__array__") or isinstance(value, list) else ""
        raise TypeError(f"{name} must be a tensor, not {_type(value)}{hint}")
    if beside is not None and value.device != beside.device:
        raise ValueError(f"{name} is on {value.device} and the sequence on {beside.device}: move one of them")


def check_vectors(name: str, value: Any, beside: Tensor) -> None:
    """The same of what is added to a stream; ValueError unless it is floating point, of whatever type."""
    check_tensor(name, value, beside)
    if not value.is_floating_point():
        raise ValueError(f"{name} must be floating point, not {value.dtype}")


def whole_numbers(name: str, value: Any, shape: str | Callable[[], str] = "") -> Tensor:
    """Tokens or positions of any whole type, as int64 or int32.

    Args:
        shape: the wanted one, for the message; where it has numbers, what makes it: a compiled graph would be for them.

    Raises:
        TypeError: it is no tensor.
        ValueError: it is of another type.
    """
    check_tensor(name, value)
    given: Tensor = value
    if given.dtype not in WHOLE:
        wanted = shape if isinstance(shape, str) else shape()
        raise ValueError(f"{name} must be whole numbers{wanted}, not {given.dtype} {tuple(given.shape)}")
    return given if given.dtype in (torch.int64, torch.int32) else given.long()


def as_weights(vectors: Tensor, module: nn.Module) -> Tensor:
    """Vectors in the floating type of a module's weights; as they are where it has none."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return vectors.to(parameter.dtype)
    return vectors


def misfit(name: str, x: Tensor, module: nn.Module) -> str | None:
    """Why torch may have stopped: x is on a device, or of a floating type, that no weight has; None: it is neither."""
    devices = {weight.device for weight in module.parameters()}
    if devices and x.device not in devices:
        (first, *_) = devices
        return f"{name} is on {x.device} and the model on {first}: move one of them, as in {name}.to('{first}')"
    types = {weight.dtype for weight in module.parameters() if weight.is_floating_point()}
    if x.is_floating_point() and types and x.dtype not in types:
        (kind, *_) = types
        return f"{name} is {x.dtype} and the weights are {kind}: convert one of them, as in {name}.to({kind})"
    return None


def _type(value: Any) -> str:
    """The type as people import it: `numpy.ndarray`, `list`."""
    own = type(value)
    return own.__qualname__ if own.__module__ == "builtins" else f"{own.__module__}.{own.__qualname__}"
