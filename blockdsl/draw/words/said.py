"""Which options the words on a block already say, those without which they would be others; words for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ...reference import telling
from ...registry.kinds import BLOCK_WORDS, Kind
from ...registry.kinds import Words as OptionWords
from ...registry.options import Option, by_name, in_digits, spell

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


def unsaid(kind: Kind, dim: int, options: Mapping[str, Any], uses: int, words: Words) -> Iterator[Option]:
    """The options of which there is something to say, and words do not tell it."""
    for option in kind.all_options():
        silent = silent_value(option, _words_for(kind, option))
        told = option.reads or options[option.name] == silent
        if not told and not said(kind, dim, options, uses, option.name, words):
            yield option


def told_of(kind: Kind, option: Option, value: Any) -> str:
    """What a reader is told of a value; as a pattern spells it where the kind has no words for it."""
    words = _words_for(kind, option)
    return as_set(option.name, value) if words is None else worded(words, value)


def _words_for(kind: Kind, option: Option) -> OptionWords | None:
    return kind.words.get(option.name) or BLOCK_WORDS.get(option.name)


def silent_value(option: Option, words: OptionWords | None) -> Any:
    """The value of which nothing is said: that which does nothing, if words say so, else the default."""
    nothing = [] if words is None or isinstance(words, str) else [value for value, text in words.items() if not text]
    return nothing[0] if nothing else option.default


def worded(words: OptionWords, value: Any) -> str:
    """A value by the words for it."""
    text = words if isinstance(words, str) else words.get(value, words.get(..., ""))
    return text.format(in_digits(value) if isinstance(value, int | float) else spelled(value))


def as_set(name: str, value: Any) -> str:
    """An option as a pattern has it."""
    return name if value is True else f"{name}={spelled(value)}"


def spelled(value: Any) -> str:
    """A value as a pattern has it, numbers with six figures."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"({', '.join(map(spelled, value))})" if isinstance(value, tuple | list) else spell(value)
