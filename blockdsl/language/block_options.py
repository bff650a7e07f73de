"""The options in a block's parentheses, judged by its kind's declarations: unknown names, wrong values, labels."""

from __future__ import annotations

from ..errors import Fault, did_you_mean, listing, shortened
from ..registry.kinds import Kind, kinds
from ..registry.options import Option, Value, by_name, spell
from ..registry.settings import STACK_SETTINGS
from ..synonyms import meant
from .macros import MACROS
from .schedules import check_value
from .syntax import Argument, Ref


def check_arguments(kind: Kind, ref: Ref) -> None:
    """Judge a block's options against its kind's declarations."""
    known = kind.written_by_name
    seen: set[str] = set()
    for argument in ref.arguments:
        name = argument.name
        if name is None:
            raise Fault(argument.span, "an option needs a name", _example(kind.written_options(), argument.value))
        if name not in known:
            problem = f"'{kind.name}' ({kind.title}) has no option '{shortened(name)}'"
            raise Fault(argument.span, problem, _option_hint(kind, name))
        if name in seen:
            raise Fault(argument.span, f"the option '{name}' is given twice", "remove one of them")
        seen.add(name)
        if known[name].reads:
            _check_label(name, argument)
        else:
            check_value(known[name], argument)


def _check_label(option: str, argument: Argument) -> None:
    if not isinstance(argument.value, str):
        problem = f"{option} takes a label" + (
            f", not {shortened(spell(argument.value))}" * (argument.value is not True)
        )
        raise Fault(argument.span, problem, f"write ^u after a block, and {option}=u where it is read")


def _example(options: tuple[Option, ...], value: Value) -> str:
    """The first option that could have this value, written out."""
    fits = [option.name for option in options if option.fault(value) is None]
    return f"as in {fits[0]}={spell(value)}" if fits else listing("options", (option.name for option in options))


def _option_hint(kind: Kind, name: str) -> str:
    known = kind.written_by_name
    if ours := meant(name):
        own = {option.setting: option.name for other in kinds().values() for option in other.written_options()}
        first = own.get(ours[0], ours[0])
        if len(ours) == 1 and first in known:
            return f"did you mean '{first}'?"
        if hint := did_you_mean(name, known):
            return hint
        name = first
    if kind.prefix and name.startswith(kind.prefix + "_") and name[len(kind.prefix) + 1 :] in known:
        return f"did you mean '{name[len(kind.prefix) + 1 :]}'? inside a block the prefix is left out"
    others = [other for other in kinds().values() if name in other.written_by_name]
    if others:
        return f"'{name}' is an option of " + ", ".join(f"'{other.name}' ({other.title})" for other in others)
    suffixes = {
        "shift_tokens": ">>, as in a>>1",
        "shift": ">>, as in a>>1",
        "scale": "/, as in f/2",
        "tie": "@, as in a@x",
    }
    if name in suffixes:
        return f"it is written with the suffix {suffixes[name]}"
    if name in kinds() or name in MACROS:
        return f"a group needs a space before its '(', as in {kind.name} ({name})"
    if setting := by_name(STACK_SETTINGS).get(name):
        value = "" if setting.type is bool else "=..."
        return f"'{name}' is a setting of the stack and comes before the pattern: set {name}{value};"
    return did_you_mean(name, known) or listing("options", known)
