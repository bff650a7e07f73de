"""The language server: the service over the Language Server Protocol, by pygls, an extra.

Owns what the protocol asks for and in which form. Documents are sent whole, as a change by lines would have to agree
with the client on what a line is. Diagnostics are made once the typing pauses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer

from .. import __version__
from ..errors import UserError
from ..language.format import format_text
from .completions import completions
from .diagnostics import diagnostics
from .hover import hover
from .outline import symbols
from .positions import Lines
from .rename import references, rename
from .scan import piece_at, scan
from .values import Diagnostic

PAUSE = 0.15  # seconds without a change before a text is judged

_SEVERITY = {"error": 1, "warning": 2, "note": 3}
_SYMBOL = {"settings": types.SymbolKind.Namespace, "definition": types.SymbolKind.Function}
_COMPLETION = {
    "kind": types.CompletionItemKind.Class,
    "macro": types.CompletionItemKind.Function,
    "definition": types.CompletionItemKind.Variable,
    "keyword": types.CompletionItemKind.Keyword,
    "option": types.CompletionItemKind.Property,
    "setting": types.CompletionItemKind.Property,
    "value": types.CompletionItemKind.Value,
    "zoo": types.CompletionItemKind.Snippet,
}
_SEMANTIC = {
    "comment": "comment",
    "keyword": "keyword",
    "setting": "property",
    "kind": "class",
    "macro": "function",
    "definition": "variable",
    "stage": "namespace",
    "label": "label",
    "tie": "label",
    "option": "parameter",
    "value": "enumMember",
    "constant": "keyword",
    "number": "number",
    "operator": "operator",
}
"""Our types of tokens as those of the protocol; the others are left to the grammar's colours."""

_LEGEND = list(dict.fromkeys(_SEMANTIC.values()))


def language_server() -> Any:
    """A server; `start_io()` runs it over standard input and output."""
    made = LanguageServer("blockdsl", __version__, text_document_sync_kind=types.TextDocumentSyncKind.Full)
    for name, of in _Features(made).table().items():
        feature, options = of if isinstance(of, tuple) else (of, None)
        made.feature(name, options)(_as_function(feature))
    return made


def _as_function(method: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """pygls writes attributes on what it is given, which methods do not take."""
    return lambda params: method(params)


class _Features:
    """What the server does, one method a feature; each gets what the protocol names, and returns it."""

    def __init__(self, made: Any) -> None:
        self.server = made
        self.waiting: dict[str, asyncio.TimerHandle] = {}  # texts that are not judged yet

    def table(self) -> dict[str, Any]:
        legend = types.SemanticTokensLegend(token_types=_LEGEND, token_modifiers=[])
        triggers = [*"(,=^<@ :"]
        return {
            types.TEXT_DOCUMENT_DID_OPEN: self.opened,
            types.TEXT_DOCUMENT_DID_CHANGE: self.changed,
            types.TEXT_DOCUMENT_DID_CLOSE: self.closed,
            types.TEXT_DOCUMENT_COMPLETION: (self.completion, types.CompletionOptions(trigger_characters=triggers)),
            types.TEXT_DOCUMENT_HOVER: self.hover,
            types.TEXT_DOCUMENT_FORMATTING: self.formatting,
            types.TEXT_DOCUMENT_RENAME: (self.rename, types.RenameOptions(prepare_provider=True)),
            types.TEXT_DOCUMENT_PREPARE_RENAME: self.prepare_rename,
            types.TEXT_DOCUMENT_DEFINITION: self.definition,
            types.TEXT_DOCUMENT_REFERENCES: self.references,
            types.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT: self.highlight,
            types.TEXT_DOCUMENT_DOCUMENT_SYMBOL: self.symbols,
            types.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL: (self.semantic_tokens, legend),
            types.TEXT_DOCUMENT_CODE_ACTION: (
                self.code_actions,
                types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix]),
            ),
        }

    # Documents -------------------------------------------------------------------------------------------------------

    def lines(self, uri: str) -> Lines:
        workspace = self.server.workspace
        units = workspace.position_encoding
        return Lines(workspace.get_text_document(uri).source, getattr(units, "value", units) or "utf-16")

    def at(self, params: Any) -> tuple[Lines, int]:
        lines = self.lines(params.text_document.uri)
        return lines, lines.offset(params.position.line, params.position.character)

    def opened(self, params: Any) -> None:
        self.judge(params.text_document.uri)

    def changed(self, params: Any) -> None:
        uri = params.text_document.uri
        self.forget(uri)
        self.waiting[uri] = asyncio.get_running_loop().call_later(PAUSE, self.judge, uri)

    def closed(self, params: Any) -> None:
        uri = params.text_document.uri
        self.forget(uri)
        self.server.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri=uri, diagnostics=[]))

    def forget(self, uri: str) -> None:
        if waiting := self.waiting.pop(uri, None):
            waiting.cancel()

    def judge(self, uri: str) -> None:
        self.waiting.pop(uri, None)
        lines = self.lines(uri)
        version = self.server.workspace.get_text_document(uri).version
        found = [self.diagnostic(lines, each) for each in diagnostics(lines.text)]
        said = types.PublishDiagnosticsParams(uri=uri, diagnostics=found, version=version)
        self.server.text_document_publish_diagnostics(said)

    def diagnostic(self, lines: Lines, found: Diagnostic) -> Any:
        return types.Diagnostic(
            range=_range(lines, found.start, found.end),
            message=found.message,
            severity=types.DiagnosticSeverity(_SEVERITY[found.severity]),
            source="blockdsl",
            tags=[types.DiagnosticTag.Unnecessary] if found.severity == "warning" else None,
        )

    # Questions -------------------------------------------------------------------------------------------------------

    def completion(self, params: Any) -> Any:
        lines, offset = self.at(params)
        items = [
            types.CompletionItem(
                label=each.label,
                kind=_COMPLETION.get(each.kind, types.CompletionItemKind.Reference),
                detail=each.help,
                # The service matches words that are not alike, as `rope` and `rotary_pos_emb`; its order stays.
                filter_text=lines.text[each.start : offset] or each.label,
                sort_text=f"{i:05}",
                text_edit=types.TextEdit(range=_range(lines, each.start, each.end), new_text=each.insert),
            )
            for i, each in enumerate(completions(lines.text, offset))
        ]
        return types.CompletionList(is_incomplete=True, items=items)

    def hover(self, params: Any) -> Any:
        lines, offset = self.at(params)
        found = hover(lines.text, offset)
        if found is None:
            return None
        contents = types.MarkupContent(kind=types.MarkupKind.PlainText, value=found.text)
        return types.Hover(contents=contents, range=_range(lines, found.start, found.end))

    def formatting(self, params: Any) -> Any:
        lines = self.lines(params.text_document.uri)
        try:
            formatted = format_text(lines.text)
        except UserError:
            return None  # its diagnostics say why
        whole = _range(lines, 0, len(lines.text))
        return [types.TextEdit(range=whole, new_text=formatted)] if formatted != lines.text else []

    def rename(self, params: Any) -> Any:
        lines, offset = self.at(params)
        try:
            edits = rename(lines.text, offset, params.new_name)
        except UserError as error:
            raise JsonRpcInvalidParams(str(error)) from None
        return self.edit(params.text_document.uri, lines, [(each.start, each.end, each.text) for each in edits])

    def prepare_rename(self, params: Any) -> Any:
        lines, offset = self.at(params)
        found = piece_at(lines.text, offset) if references(lines.text, offset) else None
        return None if found is None else _range(lines, found.start, found.end)

    def definition(self, params: Any) -> Any:
        found = self.references(params)
        return found[0] if found else None

    def references(self, params: Any) -> Any:
        lines, offset = self.at(params)
        uri = params.text_document.uri
        found = references(lines.text, offset)
        return [types.Location(uri=uri, range=_range(lines, each.start, each.end)) for each in found]

    def highlight(self, params: Any) -> Any:
        return [types.DocumentHighlight(range=each.range) for each in self.references(params)]

    def symbols(self, params: Any) -> Any:
        lines = self.lines(params.text_document.uri)
        return [
            types.DocumentSymbol(
                name=each.name,
                kind=_SYMBOL.get(each.kind, types.SymbolKind.Module),
                range=_range(lines, each.start, each.end),
                selection_range=_range(lines, each.name_start, each.name_end),
            )
            for each in symbols(lines.text)
        ]

    def semantic_tokens(self, params: Any) -> Any:
        lines = self.lines(params.text_document.uri)
        data: list[int] = []
        line = character = 0
        for piece in scan(lines.text):
            if piece.type not in _SEMANTIC:
                continue
            at, units = lines.position(piece.start)
            ahead = units - (character if at == line else 0)
            width = lines.width(piece.start, piece.end)
            data += [at - line, ahead, width, _LEGEND.index(_SEMANTIC[piece.type]), 0]
            line, character = at, units
        return types.SemanticTokens(data=data)

    def code_actions(self, params: Any) -> Any:
        uri, lines = params.text_document.uri, self.lines(params.text_document.uri)
        ends = [lines.offset(place.line, place.character) for place in (params.range.start, params.range.end)]
        out = []
        for found in diagnostics(lines.text):
            if found.fix is not None and found.start <= ends[1] and ends[0] <= found.end:
                fix = found.fix
                gone = lines.text[fix.start : fix.end].strip()
                title = f"Write {fix.text.strip()!r}" if fix.text.strip() else f"Remove {gone!r}"
                out.append(
                    types.CodeAction(
                        title=title,
                        kind=types.CodeActionKind.QuickFix,
                        diagnostics=[self.diagnostic(lines, found)],
                        edit=self.edit(uri, lines, [(fix.start, fix.end, fix.text)]),
                        is_preferred=True,
                    )
                )
        return out

    def edit(self, uri: str, lines: Lines, edits: list[tuple[int, int, str]]) -> Any:
        made = [types.TextEdit(range=_range(lines, start, end), new_text=text) for start, end, text in edits]
        return types.WorkspaceEdit(changes={uri: made})


def _range(lines: Lines, start: int, end: int) -> Any:
    (first, left), (last, right) = lines.position(start), lines.position(end)
    return types.Range(types.Position(first, left), types.Position(last, right))
