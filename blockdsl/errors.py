"""Every error the package raises on purpose, and the way a fault in a text is shown.

Owns the wording's frame (where, what, the underlined line, what to do instead). What is wrong is decided
where it is found. Each of these is a ValueError, so a caller needs no import to catch them.
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable
from typing import NamedTuple

from .synonyms import absent, meant

_WIDEST_LINE = 100  # columns of a quoted line; a longer one is cut around the fault
_LONGEST_WORD = 60  # characters of a name or value repeated in a message


class Span(NamedTuple):
    """Characters `start` up to, not including, `end` of a text."""

    start: int
    end: int


class UserError(ValueError):
    """Something asked for cannot be done; the message says what, in the user's words."""


class GraphError(UserError):
    """A block graph that cannot be lowered; the message lists every fault with its node."""


class PatternError(UserError):
    """A fault in a pattern's text.

    Attributes:
        text: the whole text, as it was given.
        line, column: where the fault starts, counted from 1.
        problem: what is wrong, one line.
        hint: what was expected or is nearest; may be empty.
    """

    def __init__(self, text: str, span: Span, problem: str, hint: str = "") -> None:
        super().__init__(text, span, problem, hint)
        self.text, self.span, self.problem, self.hint = text, span, problem, hint
        start = min(span.start, len(text))
        self.line = text.count("\n", 0, start) + 1
        self.column = start - (text.rfind("\n", 0, start) + 1) + 1

    def __str__(self) -> str:
        quoted, marks = self._underlined()
        shown = [f"{self.line}:{self.column}: {self.problem}", f"  {quoted}", f"  {marks}"]
        return "\n".join(shown + [f"  {line}" for line in self.hint.splitlines()])

    def _underlined(self) -> tuple[str, str]:
        line = self.text.split("\n")[self.line - 1]
        line = "".join(char if char.isprintable() else " " for char in line)  # a column each, and no terminal codes
        at = self.column - 1
        width = max(1, min(self.span.end - self.span.start, len(line) - at))
        left = 0
        if len(line) > _WIDEST_LINE:
            left = max(0, min(at - _WIDEST_LINE // 4, len(line) - _WIDEST_LINE))
        cut = line[left : left + _WIDEST_LINE]
        before = "…" if left else ""
        after = "…" if left + _WIDEST_LINE < len(line) else ""
        width = min(width, left + _WIDEST_LINE - at)
        return before + cut + after, " " * (len(before) + at - left) + "^" * max(1, width)


class Fault(Exception):
    """A fault found where the text is not at hand; whoever holds the text turns it into a PatternError."""

    def __init__(self, span: Span, problem: str, hint: str = "") -> None:
        super().__init__(span, problem, hint)
        self.span, self.problem, self.hint = span, problem, hint

    def within(self, text: str) -> PatternError:
        return PatternError(text, self.span, self.problem, self.hint)


def shortened(word: str) -> str:
    """`word` as a message repeats it: cut where it is far longer than anything meant."""
    return word if len(word) <= _LONGEST_WORD else word[:_LONGEST_WORD] + "…"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name most like `word`, or None when none is alike."""
    if len(word) > _LONGEST_WORD:
        return None
    names = sorted(known)
    found = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    if found:
        return found[0]
    # A word typed short or long (`mult` for `ff_mult`, `encoder` for `enc`) is alike in another way.
    inside = [n for n in names if (len(word) > 2 and word.lower() in n) or (len(n) > 2 and n in word.lower())]
    return min(inside, key=len) if inside else None


def listing(title: str, names: Iterable[str]) -> str:
    """`title: a, b, c`, over as many lines as it takes."""
    return "\n".join(textwrap.wrap(f"{title}: {', '.join(names)}", _WIDEST_LINE, subsequent_indent="  "))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, that there is no such thing, or the empty string."""
    names = sorted(known)
    if len(word) <= _LONGEST_WORD and (all_but := difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.85)):
        return f"did you mean '{all_but[0]}'?"
    # An option has the name within its block's parentheses, and with a prefix as a keyword.
    ours = [{name, name.removeprefix("attn_"), name.removeprefix("ff_")} & {*names} for name in meant(word)]
    if ours and all(ours):
        return f"did you mean {' and '.join(repr(min(found, key=len)) for found in ours)}?"
    if sentence := absent(word):
        return sentence
    longer = [f"'{name}'" for name in names if name.endswith(f"_{word}") or name.startswith(f"{word}_")]
    if 0 < len(longer) < 9:  # `dropout` or `rotary`, say; which one is meant cannot be told
        named = " or ".join(filter(None, (", ".join(longer[:-1]), longer[-1])))
        return textwrap.fill(f"did you mean {named}?", _WIDEST_LINE)
    found = nearest(word, names)
    return f"did you mean '{found}'?" if found else ""
