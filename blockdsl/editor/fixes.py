"""Hints as changes to the text: what `did you mean 'heads'?` proposes, done.

A row is what a hint looks like and the change that it means. Hints that leave something to choose have none.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..errors import PatternError
from .values import Edit

Fix = Callable[[PatternError, re.Match[str]], Edit | None]


def fix(error: PatternError) -> Edit | None:
    """The change that an error's hint proposes; None: it proposes none, or several."""
    for pattern, change in _FIXES:
        if found := re.match(pattern, error.hint):
            return change(error, found)
    return None


def _word(error: PatternError, found: re.Match[str]) -> Edit | None:
    """Another name in place of the one that is at fault, which stands first in what is underlined."""
    at = re.compile(r"[<^@]?\s*(\w+)").match(error.text, error.span.start)
    named = [each.rstrip("…") for each in re.findall(r"'([^']*)'", error.problem)]
    if at is None or (named and not any(at[1].startswith(each) for each in named)):
        return None
    name = ", ".join(filter(None, found.groups()))
    return Edit(*at.span(1), name)


def _whole(error: PatternError, found: re.Match[str]) -> Edit | None:
    return Edit(error.span.start, error.span.end, found[1])


def _inserted(text: str) -> Fix:
    return lambda error, found: Edit(error.span.start, error.span.start, text)


def _replaced(text: str) -> Fix:
    return lambda error, found: Edit(error.span.start, error.span.end, text)


def _closed(error: PatternError, found: re.Match[str]) -> Edit | None:
    """A ')' where the statement that the '(' is in ends."""
    code = re.sub(r"#[^\n]*", lambda comment: " " * len(comment.group()), error.text)
    end = code.find(";", error.span.start)
    at = len(code[: end if end >= 0 else len(code)].rstrip(" \t\r\n\f,=*|&"))
    return Edit(at, at, ")") if at > error.span.start else None


def _removed(error: PatternError, found: re.Match[str]) -> Edit | None:
    """What is underlined, with the comma or the white space before it."""
    start, end = error.span
    before = re.compile(r"\s*,\s*$|\s+$|$").search(error.text[:start])
    assert before is not None
    gone = before.start() if start else 0
    return Edit(gone, end, "" if before.group().strip() or not gone else before.group())


def _sign(error: PatternError, found: re.Match[str]) -> Edit | None:
    """The language's own sign for another one."""
    start, end = error.span
    char = error.text[start:end]
    if char in _SIGNS:
        return Edit(start, end, _SIGNS[char])
    return Edit(start, end + 1, "=>") if error.text.startswith("->", start) else None


_SIGNS = {"×": "*", "[": "(", "]": ")", "{": "(", "}": ")", "+": "&"} | dict.fromkeys("→⇒➔➡⟶⟹", "=>")
_SIGNS |= dict.fromkeys("'\"`“”‘’", "")

_FIXES: tuple[tuple[str, Fix], ...] = (
    (r"did you mean '(\w+)'(?: \([^)]*\))?\?(?: inside a block the prefix is left out)?(?:$|\n)", _word),
    (r"did you mean '(\w+)' and '(\w+)'\?$", _word),
    (r"put spaces between blocks: ([\w ]+)(?:$|\n)", _whole),
    (r"put a space between them: ([\w .…]+)$", _whole),
    (r"a count goes after '\*': (\w+\*\d+)(?:$|\n)", _whole),
    (r"write (\w+=(?:true|false|none))(?:$|,)", _whole),
    (r"close it with '\)'$", _closed),
    (r"remove it, or open a '\('", _removed),
    (r"remove one of them$", _removed),
    (r"write a plain space$", _replaced(" ")),
    (r"comments start with '#'$", lambda error, found: Edit(error.span.start - 1, error.span.end, "#")),
    (r"", _sign),
)
