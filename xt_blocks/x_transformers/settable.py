"""Attributes under x-transformers' names that can be set, and lists of modules whose items can be replaced.

Torch keeps a module in its own table, even one set under the name of a property, so that nothing would read it. Here it
goes to where the model reads it, or is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn


class Settable(nn.Module):
    """A module whose properties keep what is set, or say that they are only to be read."""

    def __setattr__(self, name: str, value: Any) -> None:
        own = getattr(type(self), name, None)
        if not isinstance(own, property):
            super().__setattr__(name, value)
        elif own.fset is None:
            raise AttributeError(
                f"{type(self).__name__}.{name} can be read, not set: nothing of the model would change"
            )
        else:
            own.fset(self, value)


class Written(nn.ModuleList):
    """Modules of a model as a list; what replaces one of them is put into the model.

    Args:
        modules: the items.
        put: called with the index and the module that replaces an item; None: nothing can be replaced.
    """

    _put: Callable[[int, Any], None] | None

    def __init__(self, modules: Iterable[nn.Module | None] = (), put: Callable[[int, Any], None] | None = None) -> None:
        super().__init__()
        object.__setattr__(self, "_put", put)
        self._modules.update({str(i): module for i, module in enumerate(modules)})  # type: ignore[misc]

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.isdigit():
            super().__setattr__(name, value)
        elif self._put is None:
            raise TypeError("an item of a part of the layers cannot be replaced; replace it in `layers` itself")
        else:
            self._put(int(name), value)
            super().__setattr__(name, value)

    def _fixed(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "layers can be replaced, not added or removed: their order is the stack's graph; build a stack with "
            "pattern= or custom_layers=, or edit stack.graph and lower it"
        )

    append = insert = extend = pop = __delitem__ = __iadd__ = _fixed


def part(read: Callable[[Any], Any], put: Callable[[Any, Any], None], name: str, doc: str) -> property:
    """A part of a model under a name of x-transformers: `read` from the model, and `put` into it when it is set.

    A subclass with a forward pass of its own keeps what it sets, for that to use.
    """

    def get(self: Any) -> Any:
        own = self._modules.get(name, self._parameters.get(name))
        return read(self) if own is None else own

    def put_or_keep(self: Any, value: Any) -> None:
        if type(self).forward in type(self).own_forwards:
            put(self, value)
        else:
            (self._parameters if isinstance(value, nn.Parameter) else self._modules)[name] = value

    return property(get, put_or_keep, doc=doc)
