"""What `set` statements say: settings read from their arguments, each fault pointing at the text."""

from __future__ import annotations

from ..errors import PatternError, did_you_mean, listing, shortened
from ..registry.options import Option, Value
from ..registry.settings import table
from ..registry.streams import pair_table
from .syntax import Argument


def from_arguments(arguments: tuple[Argument, ...], text: str, pair: bool = False) -> dict[str, Value]:
    """What `set` says, checked. `pair`: of two streams, whose settings may have a prefix.

    Raises:
        PatternError: an unknown name, a wrong value, or a setting given twice; it points at the argument.
    """
    known = pair_table() if pair else table()
    out: dict[str, Value] = {}
    for argument in arguments:
        if argument.name is None:
            raise PatternError(text, argument.span, "a setting needs a name", "as in set dim=512, heads=8;")
        if argument.name not in known:
            hint = did_you_mean(argument.name, known) or listing("settings", sorted(table()))
            if not pair and argument.name in pair_table():
                hint = f"{argument.name} is of two streams, as in (a f)*6 => (a c f)*6"
            raise PatternError(text, argument.span, f"unknown setting '{shortened(argument.name)}'", hint)
        if argument.name in out:
            problem = f"the setting '{argument.name}' is given twice"
            raise PatternError(text, argument.span, problem, "remove one of them")
        if fault := known[argument.name].fault(argument.value):
            hint = value_hint(known[argument.name], argument.value, argument.name)
            raise PatternError(text, argument.span, f"{argument.name} {fault}", hint)
        out[argument.name] = argument.value
    return out


_WRITTEN = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}
_WRITTEN |= {"none": "none", "null": "none", "nil": "none"}


def value_hint(option: Option, value: Value, name: str = "") -> str:
    """What to write in place of a value that an option cannot have; else what the option is."""
    name = name or option.name
    word = _WRITTEN.get(str(value).lower(), "")
    if option.type is bool and value in (0, 1):
        word = "true" if value else "false"
    fits = option.optional if word == "none" else option.type is bool
    if word and fits:
        return f"write {name}={word}" + (f", or only {name}" if word == "true" else "")
    return f"{name}: {option.doc}"
