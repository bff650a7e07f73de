"""Whether a module's weights may be read past its call, or its call be given further arguments.

A call is more than arithmetic: a hook sees it, an adapter changes it, offloading and sharding bring the weights for it,
quantisation replaces it. Whatever reads a weight from outside asks here first, and otherwise calls the module. Left
out: whether a kernel takes the tensors, which the kernel says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from . import compat

_KNOWN = ("torch.nn.modules.", "xt_blocks.")
_PLAIN = (Tensor, nn.Parameter)
_SHARDING = ("torch.distributed.",)


def unhooked(module: nn.Module) -> bool:
    """Whether its call is the forward of a class of torch's or ours, on plain weights, and nothing else.

    Not so with a hook, a forward of its own, a parametrization, a quantised or sharded weight, or a class that anybody
    else has written: an adapter, an offloading wrapper.
    """
    return (
        type(module).__module__.startswith(_KNOWN)
        and "forward" not in module.__dict__
        and not compat.hooked(module)
        and all(weight is None or type(weight) in _PLAIN for weight in compat.own_weights(module))
    )


def runs(module: nn.Module, forward: Callable[..., Any]) -> bool:
    """Whether its call runs this forward, and nobody sees or changes what that takes and gives.

    Weights may be anything: the hooks of torch.distributed, which have them at hand during the call, are no others.
    """
    return type(module).forward is forward and "forward" not in module.__dict__ and not compat.hooked(module, _SHARDING)


def within(module: nn.Module, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`function(x)`, of a module that `runs` its class's forward, in that forward's place: its weights are at hand."""
    if unhooked(module):
        return function(x)
    module.forward = function
    try:
        out: Tensor = module(x)
    finally:
        del module.forward
    return out
