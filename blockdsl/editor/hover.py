"""What a word of a text means: the line of the reference, or what the text itself makes of it."""

from __future__ import annotations

from ..language.macros import MACROS
from ..registry.kinds import kinds
from ..registry.options import Option, spell
from .known import READ_WORDS, known_options, known_settings
from .rename import NAMES
from .scan import ScannedToken, scan
from .values import Hover

_SIGNS = {
    "|": "a stage boundary: the stages run one after another",
    "&": "parallel branches: they read the same input, and what they add is summed",
    "*": "a repeat: so many copies one after another, each with weights of its own",
    ">>": "a token shift: a part of the features comes from so many tokens before",
    "/": "a scale: what the block adds is divided by the number",
    "@": "a tie: all blocks with this name share one set of parameters",
    "^": "a label: it names the place that the stream has reached",
    "<": "a read: it adds what is at a label to the stream",
    "=>": "two streams: cross-attention of the right one reads the output of the left one",
}
"""What the operators mean."""


def hover(text: str, offset: int) -> Hover | None:
    """What is at an offset, as plain lines; None for white space, comments, and what says nothing more."""
    pieces = scan(text)
    near = [piece for piece in pieces if piece.start <= offset < piece.end]
    found = near[0] if near else next((piece for piece in pieces if piece.end == offset), None)
    said = "" if found is None else _said(found, pieces, text)
    return Hover(found.start, found.end, said) if found is not None and said else None


def _said(piece: ScannedToken, pieces: list[ScannedToken], text: str) -> str:
    name = piece.text
    if piece.type == "kind":
        kind = kinds()[name]
        options = ", ".join(option.name for option in kind.options)
        return f"{name}: {kind.title}" + (f"\noptions: {options}" if options else "")
    if piece.type == "macro":
        macro = MACROS[name]
        return "\n".join([f"{macro.usage}: {macro.doc}", *(f"{p.name}: {p.doc}; {p.wanted()}" for p in macro.params)])
    if piece.type in ("setting", "option") or piece.option:
        return _of_argument(piece)
    if piece.type in NAMES:
        return _of_name(piece, pieces, text)
    return _SIGNS.get(name, "a setting of the stack: set dim=512, heads=8;" if piece.type == "keyword" else "")


def _of_argument(piece: ScannedToken) -> str:
    """Of an option, or of the one whose value it is."""
    name = piece.text if piece.type in ("setting", "option") else piece.option
    if not piece.owner:
        option = known_settings(pair=True).get(name)
        return "" if option is None else describe(option, name)
    if (option := known_options(piece.owner).get(name)) is not None:
        return describe(option, name)
    return f"{name}: {READ_WORDS[name]}" if name in READ_WORDS else ""


def describe(option: Option, name: str) -> str:
    """An option by this name: what it does, its values, its default."""
    lines = [f"{name}: {option.doc}", f"values: {option.wanted()}"]
    if option.default is not None or option.optional:
        lines.append(f"default: {spell(option.default)}")
    return "\n".join(lines)


def _of_name(piece: ScannedToken, pieces: list[ScannedToken], text: str) -> str:
    same = [each for each in pieces if (each.type, each.text) == (piece.type, piece.text)]
    if piece.type == "definition":
        start = same[0].start
        end = next((each.start for each in pieces if each.start > start and each.text == ";"), len(text))
        body = " ".join(text[start:end].split())
        uses = len(same) - 1
        return f"{body if len(body) <= 300 else body[:300] + '…'}\nused {_times(uses)}"
    if piece.type == "stage":
        return f"{piece.text}: a stage"
    if piece.type == "tie":
        return f"{piece.text}: a tie, written {_times(len(same))}; all its blocks share one set of parameters"
    return f"{piece.text}: a place of the stream, written {_times(len(same))}"


def _times(count: int) -> str:
    return {0: "nowhere", 1: "once", 2: "twice"}.get(count, f"{count} times")
