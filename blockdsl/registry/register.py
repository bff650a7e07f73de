"""Registering a kind: what is checked before patterns, settings, costs and lowering know it."""

from __future__ import annotations

from threading import Lock
from typing import Any

from ..errors import UserError
from .kinds import _KINDS, CONCAT, INPUTS, INPUTS_NEED, Kind, kinds
from .options import Option
from .settings import table

_ONE_AT_A_TIME = Lock()

# Words of the language, and names of the graph's other nodes.
_RESERVED = {
    *("set", "true", "false", "none", "input", "context", "condition", "sum", "read", "output"),
    *("absolute", "sinusoidal"),
    *("rotary", "t5_bias", "dynamic_bias", "alibi"),
}


# What edges of a graph carry that no option reads.
_CARRIED = {"stream", "base", "read", "position", "condition", "normed"}


def reserve(*names: str) -> None:
    """Keep names from kinds, as the language does those of its macros."""
    _RESERVED.update(names)


def register(kind: Kind) -> Kind:
    """Make `kind` known to patterns, settings, costs and lowering; returns it.

    A kind that is declared again, as when its module is imported twice, takes the earlier one's place.

    Raises:
        UserError: its name is taken or cannot be written in a pattern, an option is declared wrongly or clashes
            with another, or it asks for an input that does not exist.
    """
    with _ONE_AT_A_TIME:
        if kind.name in _KINDS and _declared(_KINDS[kind.name]) == _declared(kind):
            del _KINDS[kind.name]
        _check(kind)
        _KINDS[kind.name] = kind
    return kind


def _check(kind: Kind) -> None:
    taken = kinds().keys() | _RESERVED
    if not (kind.name.isascii() and kind.name.isidentifier()) or kind.name in taken or kind.name[-1].isdigit():
        problem = "it is taken" if kind.name in taken else "write letters and '_', with no digit at the end"
        raise UserError(f"a block kind cannot be called {kind.name!r}: {problem}")
    names = [option.name for option in kind.all_options()]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"kind '{kind.name}': options are named twice: {', '.join(sorted(twice))}")
    for option in kind.options:
        if not (option.name.isascii() and option.name.isidentifier()) or option.name == "dim":
            problem = "the module is given it anyway" if option.name == "dim" else "write letters, digits and '_'"
            raise UserError(f"kind '{kind.name}': an option cannot be called {option.name!r}: {problem}")
        if option.type not in (bool, int, float, str):
            raise UserError(f"kind '{kind.name}': the type of option '{option.name}' must be bool, int, float or str")
        if (fault := option.fault(option.default)) is not None:
            raise UserError(f"kind '{kind.name}': the default of option '{option.name}' {fault}")
        if (wrong := _reads_wrongly(kind, option)) is not None:
            raise UserError(f"kind '{kind.name}': option '{option.name}' {wrong}")
    if unknown := {*kind.shown} - {*names}:
        raise UserError(f"kind '{kind.name}': shown names no option of it: {', '.join(sorted(unknown))}")
    # A kind may follow a setting of the stack, and one of another kind by an option that is declared alike.
    known = table()
    followed = {option.setting for option in kind.options if known.get(option.setting or "") == option}
    own = {option.setting for option in kind.options if option.setting is not None}
    if clash := own & known.keys() - followed - {"causal", "heads"}:
        raise UserError(f"kind '{kind.name}': the settings {', '.join(sorted(clash))} are taken")
    if unknown := set(kind.inputs) - set(INPUTS):
        listed = ", ".join(INPUTS)
        raise UserError(f"kind '{kind.name}': unknown inputs {', '.join(sorted(unknown))}; the inputs are {listed}")
    for name in kind.inputs:
        if missing := set(INPUTS_NEED.get(name, ())) - set(names):
            needed = ", ".join(sorted(missing))
            raise UserError(f"kind '{kind.name}': the input {name} needs the option {needed}")


def _reads_wrongly(kind: Kind, option: Option) -> str | None:
    """What is wrong with an option that takes a label, as the end of a sentence."""
    if not option.reads:
        return None
    if (option.type, option.default, option.setting) != (bool, False, None):
        return "takes a label, so its type is bool, its default False, and no setting sets it"
    if option.reads in _CARRIED:
        return f"cannot read {option.reads}, which other edges of a graph carry"
    if (option.name == CONCAT) != (option.reads == CONCAT):
        return f"reads {option.reads}; the one that reads {CONCAT} is called so"
    if option.name != option.reads and option.name in INPUTS:
        return f"reads {option.reads}, but its name is that of the input {option.name}"
    if sum(other.reads == option.reads for other in kind.options) > 1:
        return f"reads {option.reads}, as another one does"
    return None


def _declared(kind: Kind) -> tuple[Any, ...]:
    """What stays the same where one declaration is run twice: its functions and classes are others then."""
    made = kind.module
    place = made if isinstance(made, str) else (made.__module__, getattr(made, "__qualname__", ""))
    return kind.title, kind.options, kind.inputs, place


def unregister(name: str) -> None:
    """Forget a kind that was registered; the built-in ones stay."""
    if name in _KINDS and _KINDS[name].builtin:
        raise UserError(f"'{name}' is built in")
    _KINDS.pop(name, None)
