"""Patterns in Pygments, as `pattern` or `blockdsl`, for documentation: an entry point, which nothing here imports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pygments import token
from pygments.lexer import Lexer

from .scan import scan

_TOKENS = {
    "comment": token.Comment.Single,
    "keyword": token.Keyword,
    "setting": token.Name.Variable.Global,
    "kind": token.Name.Class,
    "macro": token.Name.Function,
    "definition": token.Name.Variable,
    "stage": token.Name.Namespace,
    "label": token.Name.Label,
    "tie": token.Name.Label,
    "option": token.Name.Attribute,
    "value": token.Name.Constant,
    "constant": token.Keyword.Constant,
    "number": token.Number,
    "operator": token.Operator,
    "punctuation": token.Punctuation,
    "unknown": token.Name,
    "error": token.Error,
}


class PatternLexer(Lexer):  # type: ignore[misc]
    """Layer patterns."""

    name = "Layer pattern"
    aliases = ("pattern", "blockdsl")
    filenames = ("*.pattern",)

    def get_tokens_unprocessed(self, text: str) -> Iterator[tuple[int, Any, str]]:
        """Each token with where it starts."""
        at = 0
        for piece in scan(text):
            if at < piece.start:
                yield at, token.Whitespace, text[at : piece.start]
            yield piece.start, _TOKENS[piece.type], piece.text
            at = piece.end
        if at < len(text):
            yield at, token.Whitespace, text[at:]
