"""Whether a module's weights may be read past its call.

A call is more than arithmetic: hooks see it, adapters change it, offloading and sharding fetch weights for it,
quantisation replaces it. Code that reads a weight from outside asks here first, and otherwise calls the module. Leaves
out whether a kernel supports the tensors.
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
    """Whether its call is just the forward of one of torch's classes or ours, on plain weights.

    False with a hook, a replaced forward, a parametrization, a quantised or sharded weight, or any other class, such
    as an adapter or an offloading wrapper.
    """
    return (
        type(module).__module__.startswith(_KNOWN)
        and "forward" not in module.__dict__
        and not compat.hooked(module)
        and all(weight is None or type(weight) in _PLAIN for weight in compat.own_weights(module))
    )


def runs(module: nn.Module, forward: Callable[..., Any]) -> bool:
    """Whether its call runs this forward, and no hook sees or changes its inputs and outputs.

    Weights may be anything: hooks of torch.distributed, which gather them for the call, are allowed.
    """
    return type(module).forward is forward and "forward" not in module.__dict__ and not compat.hooked(module, _SHARDING)


def within(module: nn.Module, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`function(x)` in place of the forward of a module that `runs` it, so that its weights are gathered.

    Another module with the same hooks is called: other threads may be calling this one.
    """
    if unhooked(module):
        return function(x)
    called = object.__new__(type(module))  # of a sharded class too, whose `__new__` builds a module from arguments
    vars(called).update(vars(module), forward=function)
    out: Tensor = called(x)
    return out
