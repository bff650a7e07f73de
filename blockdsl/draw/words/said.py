"""Which options the words on a block already say: those without which the words would be others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ...reference import telling
from ...registry.kinds import Kind
from ...registry.options import Option, by_name, spell

Words = Callable[[Kind, Any], Any]
"""What is written for a kind and its completed options."""


def said(kind: Kind, dim: int, options: Mapping[str, Any], uses: int, name: str, words: Words) -> bool:
    """Whether words tell an option: with another value of it, or with it alone, they are others.

    Options that others need have only the second to be told by, and those that need others only the first.
    """
    option = by_name(kind.all_options())[name]
    value, defaults = options[name], {each.name: each.default for each in kind.all_options()}

    def written(chosen: Mapping[str, Any]) -> Any:
        return None if kind.clash(dim, chosen) else words(kind, kind.completed(dim, chosen, uses))

    for around in ({**options}, {**defaults}):
        here = written(around | {name: value})
        for other in (option.default, telling(option), _twice(option, value)):
            there = None if other == value else written(around | {name: other})
            if here is not None and there is not None and here != there:
                return True
    return False


def _twice(option: Option, value: Any) -> Any:
    """Another number, whatever the default and the example of the reference are."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return 2 * value if number and option.fault(2 * value) is None else value


def unsaid(kind: Kind, dim: int, options: Mapping[str, Any], uses: int, words: Words) -> Iterator[str]:
    """The options off their default that words do not tell, as a pattern spells them."""
    for option in kind.all_options():
        value = options[option.name]
        if value != option.default and not option.reads and not said(kind, dim, options, uses, option.name, words):
            yield option.name if value is True else f"{option.name}={spelled(value)}"


def spelled(value: Any) -> str:
    """A value as a pattern has it, numbers with six figures."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"({', '.join(map(spelled, value))})" if isinstance(value, tuple | list) else spell(value)
