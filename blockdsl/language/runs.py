"""Runs of plain blocks in a text, in which each block that is written alike is read once.

Most of a long pattern is blocks one after another, few of which differ. To the parser a run of them is one name, as
long as the run; what it stands for is put in its place, so that all keeps its span.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ..errors import Span
from .syntax import Argument, Ref

_LEAST = 8  # blocks in a run
_SPACE = r"[ \t\r\n\f]"
_BLOCK = r"(?!set\b)[A-Za-z_][A-Za-z0-9_]*(?:\([^()#]{0,200}\))?"
# What stands before the first block or after the last may take that for its own (`& a a *6`, `x = a`): the first is not
# in the run, nor is the last where such may follow, as after a comment, which holds no run.
_RUN = re.compile(
    rf"#[^\n]*|(?<![A-Za-z0-9_.]){_BLOCK}{_SPACE}+((?:{_BLOCK}{_SPACE}+){{{_LEAST},}})(?![ \t\r\n\f*/@&=:>#])", re.ASCII
)
_EACH = re.compile(_BLOCK, re.ASCII)


def cut(text: str, block: Callable[[str], Ref]) -> tuple[str, Mapping[int, tuple[Ref, ...]]]:
    """The text with a name in place of each run, and the blocks of each by where it starts.

    Args:
        block: reads one block alone.
    """
    runs: dict[int, tuple[Ref, ...]] = {}

    def name(found: re.Match[str]) -> str:
        start, end = found.span(1)
        if start < 0:  # a comment
            return found.group()
        places = [(each.group(), each.start()) for each in _EACH.finditer(text, start, end)]
        runs[start] = tuple(_moved(block(own), at, len(own)) for own, at in places)
        end = places[-1][1] + len(places[-1][0])
        return text[found.start() : start] + "x" * (end - start) + text[end : found.end()]

    return _RUN.sub(name, text), runs


def _moved(ref: Ref, by: int, length: int) -> Ref:
    """A block that was read alone, where it stands in the text."""
    if not ref.arguments:
        return Ref(ref.name, (), Span(by, by + length))
    arguments = tuple(Argument(a.name, a.value, Span(a.span.start + by, a.span.end + by)) for a in ref.arguments)
    return Ref(ref.name, arguments, Span(by, by + length))
