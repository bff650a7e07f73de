"""A mistyped keyword argument of a public class or method names the nearest right one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from blockdsl.errors import did_you_mean
from blockdsl.registry.settings import table

Init = TypeVar("Init", bound=Callable[..., Any])


def names_nearest(init: Init) -> Init:
    """Around an `__init__` or another method: an unknown keyword is a TypeError with the nearest known one.

    Python's own error only says that the argument was unexpected.
    """
    known = [*inspect.signature(init).parameters][1:]

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in known:
                hint = did_you_mean(name, known)
                if not hint and name in table() and "attn_layers" in known:
                    hint = "it is a setting of the stack: give it to attn_layers=Decoder(...)"
                called = type(self).__name__ if init.__name__ == "__init__" else init.__name__
                what = f"{called}() got an unknown argument '{name}'"
                raise TypeError(f"{what}; {hint}" if hint else what)
        return init(self, *args, **kwargs)

    return checked  # type: ignore[return-value]


def hands_on_to(other: Callable[..., Any]) -> Callable[[Init], Init]:
    """Around a method that hands its `**` argument on: its signature spells out the keywords of `other` there."""

    def spelled(method: Init) -> Init:
        signature = inspect.signature(method)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        more = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in inspect.signature(other).parameters.values()]
        method.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        return method

    return spelled
