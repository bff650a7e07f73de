"""Highlighters agree with the language's own lexer, on every pattern that there is."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from pygments.token import Error

from blockdsl import PatternError, editor, parse, zoo
from blockdsl.editor.pygments_lexer import PatternLexer
from blockdsl.language.parse import _parser

from .textmate import FILE, SCOPES, scopes, text, textmate

ROOT = Path(__file__).parents[2]


def is_pattern(written: str) -> bool:
    try:
        parse(written)
    except PatternError:
        return False
    return True


def corpus() -> list[str]:
    """Every text of the zoo, every block of code of the docs and every string of the examples that is a pattern."""
    found = [zoo.entry(name).text for name in zoo.names()]
    for page in sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]):
        said = page.read_text(encoding="utf-8")
        found += re.findall(r"^```\w*\n(.*?)^```", said, re.DOTALL | re.MULTILINE)
        found += re.findall(r"`([^`\n]+)`", said)
    for example in sorted((ROOT / "examples").glob("*.py")):
        for node in ast.walk(ast.parse(example.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return [written for written in dict.fromkeys(found) if is_pattern(written)]


@pytest.fixture(scope="module")
def patterns() -> list[str]:
    found = corpus()
    assert len(found) > 250
    return found


def test_the_textmate_grammar_is_current() -> None:
    assert FILE.read_text(encoding="utf-8") == text(), "python -m tests.editor"


def test_tokens_are_those_of_the_parser(patterns: list[str]) -> None:
    for written in patterns:
        edges = {place for token in editor.tokens(written) for place in (token.start, token.end)}
        assert not {token.type for token in editor.tokens(written)} & {"error", "unknown"}, written
        for token in _parser().lex(written):
            assert {token.start_pos, token.end_pos} <= edges, (written, token)


def test_textmate_gives_every_token_its_scope(patterns: list[str]) -> None:
    grammar = textmate()
    for written in patterns:
        wanted = [(token.start, token.end, f"{SCOPES[token.type]}.pattern") for token in editor.tokens(written)]
        assert scopes(written, grammar) == wanted, written


def test_pygments_gives_every_token_and_nothing_else(patterns: list[str]) -> None:
    for written in patterns:
        found = [*PatternLexer().get_tokens_unprocessed(written)]
        assert "".join(value for _, _, value in found) == written
        assert not [value for _, type, value in found if type in Error]
        starts = {at for at, _, value in found if value.strip()}
        assert starts == {token.start for token in editor.tokens(written)}


def test_pygments_takes_any_text() -> None:
    wrong = "a(heads=\x00 [ 'f' <script> 🤖"
    found = [*PatternLexer().get_tokens_unprocessed(wrong)]
    assert "".join(value for _, _, value in found) == wrong
    assert any(type in Error for _, type, _ in found)


def test_the_extension_is_whole() -> None:
    """Everything that package.json names is there, and is what it should be."""
    folder = FILE.parent
    package = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    contributes = package["contributes"]
    (language,), (grammar,) = contributes["languages"], contributes["grammars"]
    for named in (package["main"], language["configuration"], grammar["path"]):
        assert (folder / named).is_file()
    assert grammar["language"] == language["id"] == "pattern"
    assert grammar["scopeName"] == textmate()["scopeName"]
    assert language["extensions"] == [".pattern"]
    assert {"name", "publisher", "version", "engines", "license"} <= package.keys()
    assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"])
    json.loads((folder / language["configuration"]).read_text(encoding="utf-8"))
    client = (folder / package["main"]).read_text(encoding="utf-8")
    assert set(re.findall(r'require\("([\w-]+)', client)) - {"vscode"} == package["dependencies"].keys()
    assert contributes["configuration"]["properties"]["blockdsl.command"]["default"] == ["blockdsl", "lsp"]
