"""Keyword arguments of public classes and methods: errors name the nearest one, signatures show those passed on."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, get_type_hints, is_typeddict

from blockdsl.errors import did_you_mean
from blockdsl.registry.settings import table
from blockdsl.synonyms import meant

Init = TypeVar("Init", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")

_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def names_nearest(init: Init) -> Init:
    """Decorate an `__init__` or another method: an unknown keyword is a TypeError with the nearest known one.

    Python's own error only says that the argument was unexpected.
    """
    known = [*inspect.signature(init).parameters][1:]

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in known:
                hint = did_you_mean(name, known)
                ours = [ours for ours in (*meant(name), name) if ours in table()]
                if not hint and ours and "attn_layers" in known:
                    what = "it" if name in ours else " and ".join(ours)
                    hint = f"it is a setting of the stack: give {what} to attn_layers=Decoder(...)"
                called = type(self).__name__ if init.__name__ == "__init__" else init.__name__
                what = f"{called}() got an unknown argument '{name}'"
                raise TypeError(f"{what}; {hint}" if hint else what)
        return init(self, *args, **kwargs)

    return checked  # type: ignore[return-value]


def keywords_of(*sources: Any) -> list[inspect.Parameter]:
    """Keyword-only parameters for `spells`, with defaults and types.

    Args:
        sources: a dataclass or a function, for its parameters; a TypedDict, for its keys, whose default is None.
    """
    found = []
    for source in sources:
        hints = get_type_hints(source) if isinstance(source, type) else {}
        if is_typeddict(source):
            own = [inspect.Parameter(name, _KEYWORD, default=None) for name in hints]
        else:
            own = [p for p in inspect.signature(source).parameters.values() if p.kind is not p.VAR_KEYWORD]
        found += [p.replace(kind=_KEYWORD, annotation=hints.get(p.name, p.annotation)) for p in own]
    return found


def takes_what(other: Callable[P, object]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Decorate a method that passes all its arguments on to `other`: it shows the same signature."""

    def shown(method: Callable[..., R]) -> Callable[P, R]:
        signature = inspect.signature(other)
        own = inspect.signature(method).return_annotation
        method.__signature__ = signature.replace(return_annotation=own)  # type: ignore[attr-defined]
        return method

    return shown
