"""A mistyped keyword argument of a public class or method names the nearest right one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from blockdsl.errors import did_you_mean
from blockdsl.settings import table

Method = TypeVar("Method", bound=Callable[..., Any])


def names_nearest(method: Method) -> Method:
    """Around an `__init__` or another method: an unknown keyword is a TypeError with the nearest known one.

    Python's own error only says that the argument was unexpected.
    """
    return names_nearest_with()(method)


def names_nearest_with(*others: Callable[..., Any]) -> Callable[[Method], Method]:
    """The same, for a method that hands the keywords it does not name to `others`."""

    def decorate(method: Method) -> Method:
        known = [*_keywords(method)[1:], *(name for other in others for name in _keywords(other))]

        @functools.wraps(method)
        def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
            for name in kwargs:
                if name not in known:
                    hint = did_you_mean(name, known)
                    if not hint and name in table() and "attn_layers" in known:
                        hint = "it is a setting of the stack: give it to attn_layers=Decoder(...)"
                    called = type(self).__name__ if method.__name__ == "__init__" else method.__name__
                    what = f"{called}() got an unknown argument '{name}'"
                    raise TypeError(f"{what}; {hint}" if hint else what)
            return method(self, *args, **kwargs)

        return checked  # type: ignore[return-value]

    return decorate


def _keywords(function: Callable[..., Any]) -> list[str]:
    """The names a caller may use; `**rest` is none."""
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
