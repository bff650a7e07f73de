"""What a block's options say, as a key that is quick to compare: what follows from it is worked out once.

A stack has few different blocks, or all but one are as they were a key ago; a pattern of 2,000 is judged, costed and
drawn many times while it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache, wraps
from inspect import signature
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from .options import PLAIN

REMEMBERED = 8192  # contents of which an answer is kept


class Content:
    """What some options say: one object for all that say the same.

    Attributes:
        plain: whether each value is one of Python's own that never changes.
    """

    __slots__ = ("__weakref__", "names", "plain", "values")

    def __init__(self, names: tuple[str, ...], values: tuple[Any, ...], plain: bool) -> None:
        self.names, self.values, self.plain = names, values, plain

    def __reduce__(self) -> Any:  # a copy would be another object that says the same
        return _content_of, (dict(zip(self.names, self.values, strict=True)),)


_known: WeakValueDictionary[Any, Content] = WeakValueDictionary()


def content(options: Mapping[str, Any]) -> Hashable:
    """What options say: a Content, unless a value can change by itself, as an array in an edited graph."""
    if type(options) is not Values:
        return _content_of(options)
    if options._content is None:
        found = _content_of(options)
        options._content = found if type(found) is Content else None
        return found
    return options._content


def _content_of(options: Mapping[str, Any]) -> Hashable:
    names, values = tuple(options), tuple(options.values())
    types = tuple(map(type, values))  # 1 and True are equal
    key = names, values, types, tuple(repr(value) for value in values if type(value) is tuple)
    try:
        found = _known.get(key)
    except TypeError:
        return names, repr(values)
    if found is None:
        found = _known.setdefault(key, Content(names, values, all(type_ in PLAIN for type_ in types)))
    return found


class Values(dict[str, Any]):
    """The options of a block: a plain dict that knows what it says until it is changed."""

    __slots__ = ("_content",)

    def __init__(self, values: Mapping[str, Any] = {}) -> None:
        super().__init__(values)
        self._content: Content | None = None
        if type(values) is Values and type(found := content(values)) is Content:
            self._content = found

    def copy(self) -> Values:
        return Values(self)

    def __reduce__(self) -> Any:
        return Values, (dict(self),)


def _forgetting(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def changed(self: Values, *args: Any, **keywords: Any) -> Any:
        self._content = None
        return method(self, *args, **keywords)

    return changed


for _name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"):
    setattr(Values, _name, _forgetting(getattr(dict, _name)))


_Answer = TypeVar("_Answer")


def by_content(function: Callable[..., _Answer]) -> Callable[..., _Answer]:
    """A function of a block's `options`, or a node's `attrs`, and hashable values: asked once where all say the same.

    What it gives is not changed by who gets it.
    """
    at = next(place for place, name in enumerate(signature(function).parameters) if name in ("options", "attrs"))

    @lru_cache(REMEMBERED)
    def known(key: Content, *others: Any) -> _Answer:
        return function(*others[:at], dict(zip(key.names, key.values, strict=True)), *others[at:])

    @wraps(function)
    def asked(*args: Any) -> _Answer:
        key = content(args[at])
        return known(key, *args[:at], *args[at + 1 :]) if type(key) is Content else function(*args)

    return asked
