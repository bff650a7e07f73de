"""Keyword arguments of public classes: a mistyped name gets the nearest right one, a wrong value what is allowed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from blockdsl.errors import UserError, did_you_mean
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


def check_values(*given: tuple[Option, Any]) -> None:
    """Raise UserError at the first value that its option does not allow."""
    for option, value in given:
        if fault := option.fault(value):
            raise UserError(f"{option.name} {fault}")
