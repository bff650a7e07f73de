"""The language service: what an editor asks while a pattern is written. No torch.

    diagnostics(text)            what `blockdsl check` says, each with where, and a fix where its hint has one
    completions(text, offset)    what can be written at a place
    hover(text, offset)          what the word at a place means
    tokens(text)                 every token with its type, of a text with mistakes too
    formatted(text)              what `blockdsl fmt` gives
    rename(text, offset, name)   a definition, label, tie or stage with another name
    spans(text)                  where each block of the graph stands in the text

Offsets count characters of the text, as Python does. The values turn into JSON by `as_json`. The page of
`blockdsl edit` and the language server of `blockdsl lsp` are both thin over these.
"""

from ..language.format import format_text as formatted
from .completions import completions
from .diagnostics import diagnostics
from .hover import hover
from .rename import definition, references, rename
from .scan import tokens
from .spans import spans
from .values import Completion, Diagnostic, Edit, Hover, Token, applied, as_json

__all__ = [
    "Completion",
    "Diagnostic",
    "Edit",
    "Hover",
    "Token",
    "applied",
    "as_json",
    "completions",
    "definition",
    "diagnostics",
    "formatted",
    "hover",
    "references",
    "rename",
    "spans",
    "tokens",
]
