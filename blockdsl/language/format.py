"""Formatting a pattern file: canonical text, laid out over lines, with its comments kept.

One statement a line; a pattern too long for a line is broken before each `|` and `=>`. A comment on a line of its own
stays on its own, before what followed it; one after code stays after it.
"""

from __future__ import annotations

from collections.abc import Iterable

from .parse import comments
from .pattern import parse
from .syntax import TextPiece, pattern_pieces, statement_pieces

LINE = 100  # columns
_BREAKS = (" | ", " => ")  # a line may be broken before these
_INDENT = "    "  # of a line that goes on with what the one before began


def format_text(text: str) -> str:
    """`text` in canonical layout, ending in a newline. Formatting twice changes nothing.

    Raises:
        PatternError: the text is no pattern.
    """
    pattern = parse(text)
    waiting = comments(text)
    out = _Writer(text, waiting)
    for statement in pattern.statements:
        out.unit(statement_pieces(statement))
    out.unit(pattern_pieces(pattern.encoder_body, pattern.body))
    out.comments_before(len(text) + 1)
    return out.text()


class _Writer:
    def __init__(self, source: str, waiting: list[tuple[int, str]]) -> None:
        self.source, self.waiting = source, waiting
        self.lines: list[str] = [""]

    def unit(self, pieces: Iterable[TextPiece]) -> None:
        """A statement or the pattern, starting on a line of its own."""
        listed = list(pieces)
        first, last = listed[0].at, max(piece.at for piece in listed)
        long = len("".join(piece.text for piece in listed)) > LINE
        broken = long or any(first < at < last for at, _ in self.waiting)
        self._newline()
        for piece in listed:
            self.comments_before(piece.at)
            text = piece.text
            if broken and text in _BREAKS:
                self._newline()
                text = text.lstrip()
            if not self.lines[-1].strip():
                self.lines[-1] = ""
                text = text.lstrip() if piece is listed[0] or f" {text}" in _BREAKS else _INDENT + text.lstrip()
            self.lines[-1] += text

    def comments_before(self, at: int) -> None:
        while self.waiting and self.waiting[0][0] < at:
            start, comment = self.waiting.pop(0)
            line_start = self.source.rfind("\n", 0, start) + 1
            last = next((i for i in reversed(range(len(self.lines))) if self.lines[i].strip()), None)
            if self.source[line_start:start].strip() and last is not None and "#" not in self.lines[last]:
                self.lines[last] = f"{self.lines[last].rstrip()}  {comment}"
            else:
                self._newline()
                self.lines[-1] = comment
            self._newline()

    def _newline(self) -> None:
        if self.lines[-1].strip():
            self.lines.append("")

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines if line.strip()) + "\n"
