"""What is wrong with a text and what is worth a look, in the words of `blockdsl check`.

Owns which faults are shown at once: one of syntax, or else those of all names, options and settings, or else the first
of what they mean together. What is wrong is decided where it is for everybody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from ..errors import PatternError, Span, UserError
from ..graph.resolve import resolve
from ..language.arguments import from_arguments
from ..language.bounds import name_faults
from ..language.parse import Tree, parse_tree
from ..language.pattern import Pattern, of_tree
from ..language.syntax import Settings
from .fixes import fix
from .notes import notes
from .values import Diagnostic

MOST = 100  # diagnostics of a text
_WIDTH = 512  # of a pattern that sets none, as on the command line


def diagnostics(text: str, **settings: Any) -> list[Diagnostic]:
    """All that is found, by place; none of them where the text is a pattern that nothing is to be said of.

    Args:
        settings: of the stack, beside those of the text, as `blockdsl.compile` takes them.
    """
    try:
        tree = parse_tree(text)
    except PatternError as error:
        return [_of_error(error)]
    try:
        pattern = of_tree(tree, text)
    except PatternError as error:
        names = name_faults(tree.statements, *filter(None, (tree.encoder, tree.body)))
        found = [fault.within(text) for fault in islice(names, MOST)]
        found += islice(_setting_faults(tree, text), MOST)
        return sorted(map(_of_error, found[:MOST] or [error]), key=lambda each: (each.start, each.end))
    return _of_meaning(pattern, settings)


def _setting_faults(tree: Tree, text: str) -> Iterator[PatternError]:
    """What is wrong with each setting by itself."""
    seen = set[str | None]()
    statements = [statement for statement in tree.statements if isinstance(statement, Settings)]
    for argument in (argument for statement in statements for argument in statement.arguments):
        try:
            if argument.name in seen:
                from_arguments((argument, argument), text, pair=tree.encoder is not None)
            from_arguments((argument,), text, pair=tree.encoder is not None)
        except PatternError as error:
            yield error
        seen.add(argument.name)


def _of_meaning(pattern: Pattern, settings: dict[str, Any]) -> list[Diagnostic]:
    """Of a text that is a pattern: what its settings and blocks cannot be together, else notes."""
    if not {"dim", "enc_dim", "dec_dim"} & {*settings, *pattern.settings}:
        settings = settings | {"dim": _WIDTH}
    try:
        stack = resolve(pattern, **settings)
        found = notes(pattern, stack, settings)
    except PatternError as error:
        return [_of_error(error if error.text == pattern.source else _elsewhere(pattern, error))]
    except (UserError, TypeError) as error:
        return [_of_error(_elsewhere(pattern, error))]
    text = pattern.source
    return [Diagnostic(*_inside(text, note.span), note.message, note.severity, note.fix) for note in found[:MOST]]


def _elsewhere(pattern: Pattern, error: Exception) -> PatternError:
    """An error that points at no text, at the first setting that it speaks of, or at the first block."""
    named = {*re.findall(r"\w+", str(error))}
    spans = [span for name, span in pattern.setting_spans.items() if name in named]
    first = next(pattern.expansion.blocks(), None)
    where = spans[0] if spans else Span(0, 1) if first is None else first.span
    return PatternError(pattern.source, where, str(error))


def _of_error(error: PatternError) -> Diagnostic:
    message = "\n".join(filter(None, (error.problem, error.hint)))
    return Diagnostic(*_inside(error.text, error.span), message, "error", fix(error))


def _inside(text: str, span: Span) -> tuple[int, int]:
    """The span within the text; of the place after its end, the last character."""
    start, end = min(span.start, len(text)), min(max(span), len(text))
    return (max(0, start - 1), end) if start == end == len(text) else (start, end)
