"""Attributes that x-transformers has and ours are properties of: assigning to one acts, or is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn


class Named:
    """Before `nn.Module` in a class: it would keep a module under a property's name, where nothing reads it."""

    def __setattr__(self, name: str, value: Any) -> None:
        own = getattr(type(self), name, None)
        if not isinstance(own, property):
            super().__setattr__(name, value)
        elif own.fset is not None:
            own.fset(self, value)
        else:
            raise AttributeError(f"{type(self).__name__}.{name} is here only to be read")


class ReadList(nn.ModuleList):
    """Modules that are elsewhere, to be read: replacing one here would change nothing."""

    def __init__(self, modules: Iterable[nn.Module | None]) -> None:
        super().__init__()
        for i, module in enumerate(modules):
            self.add_module(str(i), module)

    def _refuses(self, *_: Any) -> Any:
        raise TypeError("these modules are here only to be read; replace one in stack.blocks, such as ['f1'].layer")

    __setitem__ = __delitem__ = __iadd__ = append = insert = extend = _refuses  # type: ignore[assignment]
