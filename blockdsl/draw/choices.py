"""What a picture can be asked for."""

from __future__ import annotations

from ..errors import UserError, did_you_mean

DETAILS = ("block", "op")
THEMES = ("auto", "light", "dark")  # auto: as the reader's setting is
COLORS = ("kind", "params", "flops", "stage", "tied")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise UserError unless it is one of them."""
    if value not in choices:
        hint = did_you_mean(str(value), choices)
        listed = f"{', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}"
        raise UserError(f"{name} must be {listed}, not {value!r}" + (f"; {hint}" if hint else ""))
