"""What a text is made of: its settings, definitions and stages, of a text with mistakes too."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .scan import scan

_EQUALS = re.compile(r"(?:\s|#[^\n]*\n)*=(?!>)")


@dataclass(frozen=True, slots=True)
class Symbol:
    """One of them: `kind` is "settings", "definition" or "stage"; its name is from `name_start` to `name_end`."""

    name: str
    kind: str
    start: int
    end: int
    name_start: int
    name_end: int


def symbols(text: str) -> list[Symbol]:
    """In order. A statement ends with its ';', a stage before the next '|', '=>' or the ')' of its group."""
    out: list[Symbol] = []
    pieces = [piece for piece in scan(text) if piece.type != "comment"]
    begun: list[tuple[int, str, str, int, int]] = []  # depth, name, kind, the name's start and end
    depth, last = 0, 0

    def ended(kinds: tuple[str, ...], end: int, down_to: int) -> None:
        while begun and begun[-1][0] >= down_to and begun[-1][2] in kinds:
            _, name, kind, start, name_end = begun.pop()
            out.append(Symbol(name, kind, start, max(end, name_end), start, name_end))

    for piece in pieces:
        if piece.text == ")" and piece.type == "punctuation":
            ended(("stage",), last, depth)
            depth = max(0, depth - 1)
        elif piece.text in ("|", "=>") and piece.type == "operator":
            ended(("stage",), last, depth)
        elif piece.text == ";":
            ended(("stage",), last, 0)
            ended(("settings", "definition"), piece.end, 0)
            depth = 0
        kind = {"keyword": "settings", "definition": "definition", "stage": "stage"}.get(piece.type)
        defines = piece.type == "definition" and _EQUALS.match(text, piece.end)
        if kind in ("settings", "stage") or defines:
            begun.append((depth, piece.text, piece.type if kind is None else kind, piece.start, piece.end))
        depth += piece.text == "(" and piece.type == "punctuation"
        last = piece.end
    while begun:
        ended((begun[-1][2],), last, 0)
    return sorted(out, key=lambda symbol: (symbol.start, -symbol.end))
