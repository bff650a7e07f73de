"""The tokens of a text with what each of them is, of a text with mistakes too.

The terminals are those of the grammar. What a name is follows from what stands before it, by a machine that reads
token after token and takes any text; whether the whole makes sense is the parser's business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache

from ..language.macros import MACROS
from ..language.parse import terminals
from ..registry.kinds import kinds
from .values import Token

TYPES = {
    "comment": "# to the end of the line",
    "keyword": "set",
    "setting": "a setting of the stack",
    "kind": "a kind of block",
    "macro": "a macro",
    "definition": "a definition, where it is made and where it is used",
    "stage": "the name of a stage",
    "label": "a label, after ^ and < and as an option's value",
    "tie": "the label of a tie, after @",
    "option": "an option of a block, a parameter of a macro, a word of a read",
    "value": "a word that is an option's value",
    "constant": "true, false, none",
    "number": "a number",
    "operator": "| & * >> / @ ^ < => =",
    "punctuation": "( ) , ; :",
    "unknown": "a block that there is not",
    "error": "a character that no token has",
}
"""Types of tokens, and what they are."""

CONSTANTS = ("true", "false", "none")

_OPERATORS = {"EQUAL": "item", "VBAR": "item", "AMPERSAND": "item", "FEEDS": "item", "CIRCUMFLEX": "label"} | {
    "LESSTHAN": "read",
    "AT": "tie",
    "STAR": "count",
    "SHIFT": "shift",
    "SLASH": "divisor",
}
"""Operators → what is written after them, outside of parentheses."""


@dataclass(slots=True)
class OpenFrame:
    """What is open around a place: a group, arguments of a block, of a read or of `set`, or a tuple of values."""

    sort: str  # "group", "call", "read", "set" or "tuple"
    name: str = ""  # of the block or the label
    start: int = 0
    option: str = ""  # the one whose value comes next
    given: list[str] = field(default_factory=list)  # the options written so far


@dataclass(slots=True)
class ScannedToken:
    """A token with its text; `owner` is the name that it is an argument of, or an option's value's block."""

    start: int
    end: int
    text: str
    type: str
    owner: str = ""
    option: str = ""


class Scanner:
    """Reads a text.

    Attributes:
        pieces: every token.
        open_at, expected_at: what is open around the place `at`, the innermost last, and what can be written there.
    """

    def __init__(self, text: str, at: int | None = None) -> None:
        self.text = text
        self.pieces: list[ScannedToken] = []
        self.frames: list[OpenFrame] = []
        self.labelled: dict[str, set[str]] = {}
        self.expects = "statement"
        self.open_at: list[OpenFrame] | None = None
        self.expected_at = ""
        for found in _lexer().finditer(text):
            if at is not None and found.end() > at and self.open_at is None:
                self._note()
            terminal = found.lastgroup or ""
            if terminal != "SPACE":
                self._read(terminal, found.start(), found.end())
        if self.open_at is None:
            self._note()

    def _note(self) -> None:
        """That the place is reached."""
        self.open_at = [replace(frame, given=[*frame.given]) for frame in self.frames]
        self.expected_at = self.expects

    def _read(self, terminal: str, start: int, end: int) -> None:
        text = self.text[start:end]
        if terminal == "COMMENT":
            self._add(start, end, "comment")
        elif terminal == "ERROR":
            self._add(start, end, "error")
        elif terminal == "NAME":
            self._name(text, start, end)
        elif terminal == "CALL":
            self._call(text[:-1], start, end)
        elif terminal == "NUMBER":
            frame = self._arguments()
            self._add(start, end, "number", frame)
            self.expects = "separator" if frame else "item"
        elif terminal in _OPERATORS:
            self._operator(terminal, start, end)
        else:
            self._punctuation(terminal, start, end)

    def _add(self, start: int, end: int, type: str, frame: OpenFrame | None = None) -> None:
        owner, option = (frame.name, frame.option) if frame else ("", "")
        self.pieces.append(ScannedToken(start, end, self.text[start:end], type, owner, option))

    def _arguments(self) -> OpenFrame | None:
        """The call, read or `set` whose arguments are being read."""
        inside = [frame for frame in self.frames if frame.sort != "tuple"]
        return inside[-1] if inside and inside[-1].sort != "group" else None

    def _name(self, name: str, start: int, end: int) -> None:
        frame = self._arguments()
        if self.expects == "statement" and name == "set":
            self._add(start, end, "keyword")
            self.frames, self.expects = [OpenFrame("set", start=start)], "option"
        elif frame and self.expects == "value":
            reads = frame.sort == "call" and frame.option in self._labels_of(frame.name)
            self._add(start, end, "constant" if name in CONSTANTS else "label" if reads else "value", frame)
            self.expects = "separator"
        elif frame:
            self._add(start, end, "setting" if frame.sort == "set" else "option", frame)
            frame.given.append(name)
            self.expects = "separator"
        else:
            type = {"read": "label"}.get(self.expects, self.expects)
            self._add(start, end, type if type in ("label", "tie") else "item")
            self.expects = "item"

    def _labels_of(self, kind: str) -> set[str]:
        """The options of a kind that take a label."""
        if kind not in self.labelled:
            known = kinds().get(kind)
            self.labelled[kind] = {option.name for option in known.reading_options()} if known else set()
        return self.labelled[kind]

    def _call(self, name: str, start: int, end: int) -> None:
        read = self.expects == "read"
        self._add(start, end - 1, "label" if read else "item")
        self._add(end - 1, end, "punctuation")
        self.frames.append(OpenFrame("read" if read else "call", name, start))
        self.expects = "option"

    def _operator(self, terminal: str, start: int, end: int) -> None:
        self._add(start, end, "operator")
        frame = self._arguments()
        if frame is not None and terminal == "EQUAL":
            frame.option = frame.given[-1] if frame.given else ""
            self.expects = "value"
            return
        while self._arguments():  # none of the others can stand in arguments: their end is missing
            self.frames.pop()
        if terminal == "EQUAL":
            self._last_name_is("definition")
        self.expects = _OPERATORS[terminal]

    def _punctuation(self, terminal: str, start: int, end: int) -> None:
        frame = self._arguments()
        self._add(start, end, "punctuation")
        if terminal == "SEMICOLON":
            self.frames, self.expects = [], "statement"
        elif terminal == "LPAR":
            self.frames.append(OpenFrame("tuple" if frame else "group", start=start))
            self.expects = "value" if frame else "item"
        elif terminal == "RPAR":
            if self.frames and self.frames[-1].sort != "set":
                self.frames.pop()
            self.expects = "separator" if self._arguments() else "item"
        elif terminal == "COMMA" and frame:
            in_tuple = self.frames[-1].sort == "tuple"
            if not in_tuple:
                frame.option = ""
            self.expects = "value" if in_tuple else "option"
        elif terminal == "COLON" and frame is None:
            self._last_name_is("stage")
            self.expects = "item"

    def _last_name_is(self, type: str) -> None:
        """The name before '=' or ':' turns out to be something other than a block."""
        at = len(self.pieces) - 2
        while at >= 0 and self.pieces[at].type == "comment":
            at -= 1
        if at >= 0 and self.pieces[at].type == "item":
            self.pieces[at].type = type


def scan(text: str) -> list[ScannedToken]:
    """Every token, with what each name is."""
    return named(Scanner(text).pieces)


def named(pieces: list[ScannedToken]) -> list[ScannedToken]:
    """The same tokens, once all definitions are known."""
    defined = {piece.text for piece in pieces if piece.type == "definition"}
    for piece in pieces:
        if piece.type == "item":
            known = (("kind", kinds()), ("macro", MACROS), ("definition", defined))
            piece.type = next((type for type, names in known if piece.text in names), "unknown")
    return pieces


def tokens(text: str) -> list[Token]:
    """Every token but white space, in order; none of them overlap."""
    return [Token(piece.start, piece.end, piece.type) for piece in scan(text)]


def piece_at(text: str, offset: int) -> ScannedToken | None:
    """The token at an offset; of two that meet there, the name."""
    near = [piece for piece in scan(text) if piece.start <= offset <= piece.end]
    return max(near, key=lambda piece: (piece.text[:1].isidentifier(), piece.start), default=None)


@lru_cache(maxsize=1)
def _lexer() -> re.Pattern[str]:
    """One pattern with a group for each terminal, the longest first; any other character is an ERROR."""
    found = {name: pattern for name, pattern in terminals().items() if name != "SET"}  # a name, to this
    return re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in found.items()) + "|(?P<ERROR>(?s:.))")
