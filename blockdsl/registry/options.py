"""The declaration of an option, and the check of one value against it.

An option is declared once; the language, the keyword API, the cost model, the error messages and the
generated reference all read that declaration. Which options exist is in `kinds` (of a block) and
`settings` (of the stack).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

from ..errors import UserError, did_you_mean, shortened


@dataclass(frozen=True)
class Ramp:
    """`6..2`: a number that goes evenly from the first copy of a repeat to the last."""

    start: int | float
    end: int | float


Value = bool | int | float | str | None | Ramp | tuple["Value", ...]

TOO_LARGE = 10**18  # numbers from here on mean nothing in a model; costs and texts can rely on smaller ones

_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}


@dataclass(frozen=True)
class Option:
    """One option of a block kind or of the stack.

    Args:
        name: as written in a pattern, `a(heads=16)`.
        type: bool, int, float or str; an int is taken where a float is asked for.
        default: the value when neither the block nor the stack says otherwise.
        doc: one line for the generated reference.
        setting: the stack's keyword that sets it for every block; None where only a block can set it.
        least, most: the allowed range of a number, both ends in.
        above, below: ends which are themselves not allowed.
        choices: the allowed names.
        optional: whether `none` is a value.
        pair: whether two numbers are a value, a height and a width.
        many: whether a value is a list of numbers, each within the range.
        area: of the reference; empty: that of where it is declared.
        scores: of attention, what it does to scores: "package.module:name" of what makes a modifier, or a module that
            gives some, of the block's options; see `xt_blocks.kernels.scores.spec`. Empty: it does nothing to scores.
        reads: of an option whose value in a text is a label, `a(kv=u)`: what it reads of the place that this names. In
            a graph the option is true, and an edge that carries this comes from the place. Only a block can set it.
        by_use: where it is on, each use of a tied block has parameters of its own. The module is built with `uses`, how
            many there are, and gets the input `use`, which of them it is.
        saved: of a block's option, its completed options → numbers that the block saves of each token for the backward
            pass where this is on, of which its kind's `saved` knows nothing. None: none.
    """

    name: str
    type: type
    default: Value
    doc: str
    setting: str | None = None
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False
    pair: bool = False
    many: bool = False
    area: str = ""
    scores: str = ""
    reads: str = ""
    by_use: bool = False
    saved: Callable[[Any], float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "default", plain(self.default))
        object.__setattr__(self, "_default_fits", self.type in _TYPES and self._fault(self.default) is None)

    def fault(self, value: Any) -> str | None:
        """What is wrong with `value`, as the end of a sentence that starts with the option's name."""
        if value is self.default and vars(self)["_default_fits"]:  # which most values of a graph are
            return None
        return self._fault(value)

    def _fault(self, value: Any) -> str | None:
        value = plain(value)
        if value is None:
            return None if self.optional else f"must be {self.wanted()}, not none"
        if self.pair and isinstance(value, tuple | list) and len(value) == 2:
            each = replace(self, optional=False, pair=False)
            return next(filter(None, map(each.fault, value)), None)
        if self.many and isinstance(value, tuple | list) and value:
            each = replace(self, optional=False, many=False)
            return next(filter(None, map(each.fault, value)), None)
        number = isinstance(value, int | float) and not isinstance(value, bool) and not self.many
        right_type = {
            bool: isinstance(value, bool),
            int: number and isinstance(value, int),
            float: number,
            str: isinstance(value, str),
        }[self.type]
        if right_type and number and abs(value) >= TOO_LARGE:
            return "must be below 1e18" if value > 0 else "must be above -1e18"
        in_range = right_type and (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (not self.choices or value in self.choices)
            and value == value  # not NaN
        )
        shown = repr(value) if isinstance(value, str) and not value.isidentifier() else spell(value)
        return None if in_range else f"must be {self.wanted()}, not {shortened(shown)}"

    def wanted(self) -> str:
        """The allowed values in words: `a whole number of at least 1`."""
        words = ", ".join(map(repr, self.choices)) if self.choices else _TYPES[self.type]
        words = "a label" if self.reads else words
        words = f"a list, each {words}" if self.many else words
        if self.choices:
            words = f"one of {words}"
        if self.above is not None:
            words += f" above {self.above:g}" + ("" if self.most is None else f" and at most {self.most:g}")
        elif self.least is not None and self.most is not None:
            words += f" from {self.least:g} to {self.most:g}"
        elif self.least is not None:
            words += f" of at least {self.least:g}"
        elif self.most is not None:
            words += f" of at most {self.most:g}"
        if self.below is not None:
            words += f" and below {self.below:g}"
        words += ", or two of them" if self.pair else ""
        return words + (" or none" if self.optional else "")


PLAIN = (type(None), bool, int, float, str)
"""Types of values that are Python's own and never change."""


def plain_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same with each value in Python's own types, which nearly all are."""
    return {name: value if type(value) in PLAIN else plain(value) for name, value in options.items()}


def plain(value: Any) -> Any:
    """A value in Python's own types: numbers of other libraries become bool, int or float, their lists lists.

    A NumPy scalar, an array or tensor of a single number, or of one axis. Anything else stays as it is, for `fault`.
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, tuple | list):
        return type(value)(map(plain, value)) if type(value) in (tuple, list) else tuple(map(plain, value))
    if isinstance(value, Integral | Real):
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if hasattr(value, "tolist") and len(getattr(value, "shape", (0, 0))) < 2:
        try:
            return plain(value.tolist())
        except (RuntimeError, TypeError, ValueError):  # a tensor that has no values, or several
            return value
    return value


def whole(name: str, value: Any, least: int | None = 0) -> int:
    """An argument that is a whole number of at least `least`, of any size if that is None, as a Python int.

    Raises:
        UserError: it is none; the message says what it is.
    """
    number: int = _checked(name, Option(name, int, None, "", least=least), value)
    return number


def real(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """An argument that is a number within these limits, as a Python int or float.

    Raises:
        UserError: it is none; the message says what it is.
    """
    number: float = _checked(name, Option(name, float, None, "", None, least, most, above, below), value)
    return number


def _checked(name: str, option: Option, value: Any) -> Any:
    if fault := option.fault(value):
        raise UserError(f"{name} {fault}")
    return tuple(plain(value)) if option.many and value is not None else plain(value)


def spell(value: Any) -> str:
    """A value as the language writes it: `true`, `0.5`, `(1, 2)`."""
    value = plain(value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Ramp):
        return f"{spell(value.start)}..{spell(value.end)}"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(map(spell, value)) + ")"
    return value if isinstance(value, str) else repr(value)


def in_digits(number: int | float) -> str:
    """A number for a reader: `8,192`, `0.5`, `1e-6`, `1e11`."""
    short = f"{number:.6g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    round_one = abs(number) >= 1e9 and float(short) == number
    return f"{number:,}" if isinstance(number, int) and not round_one else short


def by_name(options: Sequence[Option]) -> dict[str, Option]:
    return {option.name: option for option in options}


def check_names(given: Iterable[str], known: Collection[str], what: str) -> None:
    """Judge the names of keyword arguments; `what` starts the message: `Attention() got an unknown argument`.

    Raises:
        TypeError: a name that is not known; the message has the nearest one.
    """
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known)
            raise TypeError(f"{what} '{name}'" + (f"; {hint}" if hint else ""))


def checked_values(given: Mapping[str, Any], known: Mapping[str, Option]) -> dict[str, Any]:
    """The values of known options in Python's own types.

    Raises:
        UserError: a value out of range.
    """
    return {name: _checked(name, known[name], value) for name, value in given.items()}


def in_area(area: str, options: Sequence[Option]) -> tuple[Option, ...]:
    """The options, with this area of the reference where they name none."""
    return tuple(replace(option, area=option.area or area) for option in options)
