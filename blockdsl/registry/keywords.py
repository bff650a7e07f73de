"""Options as keyword arguments: what `inspect.signature` shows of a `**` argument.

Type checkers and editors read the same from `blockdsl.signatures`, which is generated from the same tables.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from .options import Option

F = TypeVar("F", bound=Callable[..., Any])


def annotation(option: Option) -> Any:
    """The type of an option's values: `int`, `int | tuple[int, int]`, `Literal["block", "stage"] | None`."""
    kind: Any = Literal[option.choices] if option.choices else option.type
    kind = kind | tuple[int, int] if option.pair else Sequence[kind] if option.many else kind
    return kind | None if option.optional or option.default is None else kind


def parameters(options: Mapping[str, Option]) -> list[inspect.Parameter]:
    """Keyword-only parameters with defaults and types, of options by the names that they have as keywords."""
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=annotation(option))
        for name, option in options.items()
    ]


def spells(*more: Iterable[inspect.Parameter]) -> Callable[[F], F]:
    """Around a function with a `**` argument: its signature has these parameters in that argument's place.

    A parameter that the function names itself stays as it is.
    """

    def spelled(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        names = {p.name for p in own}
        added = {p.name: p for part in more for p in part if p.name not in names}
        function.__signature__ = signature.replace(parameters=[*own, *added.values()])  # type: ignore[attr-defined]
        return function

    return spelled
