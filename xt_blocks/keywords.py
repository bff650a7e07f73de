"""A mistyped keyword argument of a public class names the nearest right one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from blockdsl.errors import did_you_mean
from blockdsl.options import Option
from blockdsl.settings import table

Init = TypeVar("Init", bound=Callable[..., None])


def names_nearest(init: Init) -> Init:
    """Around an `__init__`: an unknown keyword is a TypeError with the nearest known one.

    Python's own error only says that the argument was unexpected.
    """
    known = [*inspect.signature(init).parameters][1:]

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        for name in kwargs:
            if name not in known:
                hint = did_you_mean(name, known)
                if not hint and name in table() and "attn_layers" in known:
                    hint = "it is a setting of the stack: give it to attn_layers=Decoder(...)"
                what = f"{type(self).__name__}() got an unknown argument '{name}'"
                raise TypeError(f"{what}; {hint}" if hint else what)
        init(self, *args, **kwargs)

    return checked  # type: ignore[return-value]


def takes(options: tuple[Option, ...]) -> Callable[[Init], Init]:
    """Around an `__init__` with a `**` argument: its signature spells out `options` in that argument's place."""

    def spelled(init: Init) -> Init:
        signature = inspect.signature(init)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        names = {parameter.name for parameter in own}
        more = [
            inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default)
            for option in options
            if option.name not in names
        ]
        init.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        return init

    return spelled
