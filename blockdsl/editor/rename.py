"""Names that a text makes: where they are made, where they are used, and all of these with another name."""

from __future__ import annotations

from ..errors import UserError
from ..language.macros import MACROS
from ..language.unparse import is_name
from ..registry.kinds import kinds
from .scan import CONSTANTS, ScannedToken, piece_at, scan
from .values import Edit, Token

NAMES = {"definition": "a definition", "label": "a label", "tie": "a tie", "stage": "a stage"}
"""Types of tokens that can be renamed, in words."""


def references(text: str, offset: int) -> list[Token]:
    """Every place of the definition, label, tie or stage whose name is at an offset; none where there is no such."""
    found = piece_at(text, offset)
    if found is None or found.type not in NAMES:
        return []
    return [Token(piece.start, piece.end, piece.type) for piece in _same(scan(text), found)]


def _same(pieces: list[ScannedToken], as_this: ScannedToken) -> list[ScannedToken]:
    return [piece for piece in pieces if (piece.type, piece.text) == (as_this.type, as_this.text)]


def definition(text: str, offset: int) -> Token | None:
    """Where the name at an offset is first written; of a definition or label, where it is made."""
    return next(iter(references(text, offset)), None)


def renamable(text: str, offset: int) -> ScannedToken:
    """The name at an offset that can be another.

    Raises:
        UserError: there is none.
    """
    found = piece_at(text, offset)
    if found is None or found.type not in NAMES:
        what = "there is no name here" if found is None else f"'{found.text}' is no name that this text makes"
        raise UserError(f"{what}; definitions, labels, ties and stages can be renamed")
    return found


def rename(text: str, offset: int, name: str) -> list[Edit]:
    """The changes that give the definition, label, tie or stage at an offset another name.

    Raises:
        UserError: there is none, or it cannot be called that.
    """
    found, pieces = renamable(text, offset), scan(text)
    if problem := _problem(pieces, found, name):
        raise UserError(f"{NAMES[found.type]} cannot be called '{name}': {problem}")
    return [Edit(piece.start, piece.end, name) for piece in _same(pieces, found)]


def _problem(pieces: list[ScannedToken], found: ScannedToken, name: str) -> str:
    if not is_name(name):
        return "a name has letters, digits and '_'"
    if found.type in ("definition", "stage") and name == "set":
        return "it is a word of the language"
    if found.type == "definition" and (name in kinds() or name in MACROS):
        return "it is a block kind" if name in kinds() else "it is a macro"
    if found.type == "label" and name in CONSTANTS:
        return "it is a value"
    taken = {piece.text for piece in pieces if piece.type in (found.type, "unknown")}
    return f"there is {NAMES[found.type]} of that name" if name in taken and name != found.text else ""
