"""Options that change from copy to copy of a repeat: `f(mult=6..2)*12`, `(a(max_attend_past=(128, none)) f)*6`.

A ramp goes evenly from its first number, which the first copy has, to its last; a list is gone through in turn. Which
repeat is meant is the innermost one around the block.
"""

from __future__ import annotations

from ..errors import Fault
from ..registry.options import Option, Ramp, Value
from .arguments import value_hint
from .syntax import Argument


def varies(option: Option, value: Value) -> bool:
    """Whether a value of this option stands for others; of an option that takes a list, a list does not."""
    return isinstance(value, Ramp) or (isinstance(value, tuple) and not (option.many or option.pair))


def check_value(option: Option, argument: Argument) -> None:
    """Judge an option's value, or all that it stands for.

    Raises:
        Fault: one is out of range, or a ramp is given where no number is.
    """
    name, value = option.name, argument.value
    if isinstance(value, Ramp) and (option.type not in (int, float) or option.many or option.pair):
        problem = f"{name} must be {option.wanted()}, and a ramp is of numbers"
        raise Fault(argument.span, problem, f"{name}: {option.doc}")
    if isinstance(value, Ramp):
        every: tuple[Value, ...] = (value.start, value.end)
    else:
        every = value if varies(option, value) and isinstance(value, tuple) else (value,)
    for each in every:
        if fault := option.fault(each):
            raise Fault(argument.span, f"{name} {fault}", value_hint(option, each))


def value_of(option: Option, argument: Argument, copy: tuple[int, int] | None) -> Value:
    """What a value is in one copy of a repeat.

    Args:
        copy: the copy's index and how many there are, of the innermost repeat; None: there is none.

    Raises:
        Fault: it has too few copies for the value to change.
    """
    value = argument.value
    if not varies(option, value):
        return value
    index, count = copy or (0, 1)
    if isinstance(value, Ramp):
        if count < 2:
            problem = "a ramp goes over the copies of a repeat, and there is none" if copy is None else _ONE
            raise Fault(argument.span, problem, "repeat the block or a group around it, as in f(mult=6..2)*6")
        number = value.start + (value.end - value.start) * index / (count - 1)
        return round(number) if option.type is int else number
    assert isinstance(value, tuple)
    if len(value) > count:
        copies = f"{count} cop{'y' if count == 1 else 'ies'}"
        there_is = "no repeat to go through it" if copy is None else f"the repeat has {copies}"
        problem = f"{option.name} has a list of {len(value)}, and {there_is}"
        raise Fault(argument.span, problem, f"its copies take the values in turn, as in (a f)*{2 * len(value)}")
    return value[index % len(value)]


_ONE = "a ramp goes over the copies of a repeat, and there is one copy"
