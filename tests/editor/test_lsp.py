"""`blockdsl lsp`, spoken to over its pipes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from blockdsl import editor
from blockdsl.editor.positions import Lines

from .client import URI, Client, span


@pytest.fixture(scope="module")
def running() -> Iterator[Client]:
    with Client() as client:
        yield client


@pytest.fixture
def client(running: Client) -> Iterator[Client]:
    yield running
    running.tell("textDocument/didClose", {"textDocument": {"uri": URI}})


def edited(text: str, edits: list[dict[str, Any]], units: str = "utf-16") -> str:
    lines = Lines(text, units)
    return editor.applied(
        text,
        [editor.Edit(*(lines.offset(*at(edit, end)) for end in ("start", "end")), edit["newText"]) for edit in edits],
    )


def at(edit: dict[str, Any], end: str) -> tuple[int, int]:
    return edit["range"][end]["line"], edit["range"][end]["character"]


def test_what_it_can(client: Client) -> None:
    assert client.can["textDocumentSync"]["change"] == 1  # the whole text
    wanted = ("hover", "documentFormatting", "definition", "references", "documentHighlight", "documentSymbol")
    assert all(client.can[f"{name}Provider"] for name in wanted)
    assert client.can["renameProvider"] == {"prepareProvider": True}
    assert client.can["codeActionProvider"]["codeActionKinds"] == ["quickfix"]


def test_diagnostics_are_where_the_text_is_wrong(client: Client) -> None:
    (found,) = client.open("set dim=512;\nf a f | attn*6\n")
    assert found["range"] == span(1, 8, 12)
    assert found["message"].startswith("unknown block 'attn'\ndid you mean 'a' (self-attention)?")
    assert (found["severity"], found["source"]) == (1, "blockdsl")
    client.change("set dim=512;\nf a f | a*6\n")
    assert client.diagnostics() == []
    client.change("x = a f;\na f")
    assert [(each["severity"], each["range"]) for each in client.diagnostics()] == [(2, span(0, 0, 1))]


def test_a_fix_is_a_code_action(client: Client) -> None:
    text = "x = a f;\na(hedas=8) (f attn)*2"
    client.open(text)

    def actions(line: int, start: int, end: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = client.of("codeAction", range=span(line, start, end), context={"diagnostics": []})
        return found

    (action,) = actions(1, 4, 4)
    assert (action["title"], action["kind"]) == ("Write 'heads'", "quickfix")
    assert edited(text, action["edit"]["changes"][URI]) == "x = a f;\na(heads=8) (f attn)*2"
    assert [each["title"] for each in actions(1, 0, 40)] == ["Write 'heads'", "Write 'a'"]
    assert actions(0, 0, 1) == []
    client.change("x = a f;\na f")
    client.diagnostics()
    (action,) = actions(0, 0, 0)
    assert action["title"] == "Remove 'x = a f;'"


def test_completion_takes_the_place_of_a_word(client: Client) -> None:
    text = "f(acti, glu)"
    client.open(text)
    found = client.at("completion", 0, 6)
    (item,) = found["items"]
    assert found["isIncomplete"]
    assert item["label"] == "activation"
    assert edited(text, [item["textEdit"]]) == "f(activation=, glu)"


def test_hover_formatting_symbols(client: Client) -> None:
    client.open("set  dim=512;enc=(a f)*6; stem:f a|enc")
    assert client.at("hover", 0, 6)["contents"]["value"].startswith("dim: features of the stream")
    assert client.at("hover", 0, 4) is None
    (edit,) = client.of("formatting", options={"tabSize": 4, "insertSpaces": True})
    assert edit["newText"] == "set dim=512;\nenc = (a f)*6;\nstem: f a | enc\n"
    assert [each["name"] for each in client.of("documentSymbol")] == ["set", "enc", "stem"]
    client.change("a f (")
    assert client.of("formatting", options={"tabSize": 4, "insertSpaces": True}) is None


def test_renaming(client: Client) -> None:
    text = "x = a@t f;\nx*2 | x a@t"
    client.open(text)
    assert client.at("prepareRename", 1, 0) == span(1, 0, 1)
    assert client.at("prepareRename", 1, 8) is None
    made = client.at("rename", 1, 0, newName="enc")
    assert edited(text, made["changes"][URI]) == "enc = a@t f;\nenc*2 | enc a@t"
    where = {"line": 1, "character": 0}
    refused = client.ask_raw(
        "textDocument/rename", {"textDocument": {"uri": URI}, "position": where, "newName": "sandwich"}
    )
    assert refused["error"]["message"].endswith("a definition cannot be called 'sandwich': it is a macro")
    assert client.at("definition", 1, 0)["range"] == span(0, 0, 1)
    assert len(client.at("references", 0, 6, context={"includeDeclaration": True})) == 2


def test_semantic_tokens_cover_the_words(client: Client) -> None:
    client.open("set dim=8;\n  a # c")
    types = client.can["semanticTokensProvider"]["legend"]["tokenTypes"]
    data = client.of("semanticTokens/full")["data"]
    words = [(*data[i : i + 3], types[data[i + 3]]) for i in range(0, len(data), 5)]
    assert words == [
        (0, 0, 3, "keyword"),
        (0, 4, 3, "property"),
        (0, 3, 1, "operator"),
        (0, 1, 1, "number"),
        (1, 2, 1, "class"),
        (0, 2, 3, "comment"),
    ]


@pytest.mark.parametrize(
    ("offered", "units"), [(None, "utf-16"), (["utf-8", "utf-16"], "utf-8"), (["utf-32"], "utf-32")]
)
def test_positions_beyond_the_basic_plane(offered: list[str] | None, units: str) -> None:
    text = "# 🤖\u2028\x0c𝔸é\na ^𝔘 f  # 🦙\r\nx = a; attn 🤖 f\rx"
    before = {"utf-8": lambda s: len(s.encode()), "utf-16": lambda s: len(s.encode("utf-16-le")) // 2, "utf-32": len}
    count = before[units]
    with Client(offered) as client:
        assert client.can["positionEncoding"] == units
        (found,) = client.open(text)
        assert found["range"] == span(1, 3, 3 + count("𝔘"))  # a character that has no meaning
        text = "# 🤖\u2028\x0c𝔸é\nx = a f;  # 🦙\r\n\rx attn"
        client.change(text)
        (found,) = client.diagnostics()
        assert found["range"] == span(3, 2, 6)
        text = "a f #" + " 🤖"
        client.change(text)
        (edit,) = client.of("formatting", options={"tabSize": 4, "insertSpaces": True})
        assert edit["range"] == span(0, 0, count(text))


def test_typing_thousands_of_characters(client: Client) -> None:
    client.open("")
    text = "set dim=512; " + "a(heads=8) f(glu) " * 120
    for end in range(1, len(text) + 1):
        client.change(text[:end])
        if end % 500 == 0:
            client.at("completion", 0, end)
    assert client.diagnostics() == []
    assert len(client.said) < 500  # it is judged where the typing pauses


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>" * 8000,
        "(" * 200_000,
        "a " * 11_000,
        "a(" * 20_000,
        "#" * 200_001,
        "\ud83d a f",
        "=" * 9999,
        "\0" * 50,
    ],
)
def test_hostile_texts(client: Client, text: str) -> None:
    found = client.open(text)
    assert found
    lines = Lines(text)
    for each in found:
        ends = [lines.offset(*at(each, end)) for end in ("start", "end")]
        assert 0 <= ends[0] <= ends[1] <= len(text)
    last = lines.position(len(text))
    client.at("completion", *last)
    client.at("hover", *last)
    client.of("documentSymbol")
    client.of("semanticTokens/full")
    assert client.of("formatting", options={"tabSize": 4, "insertSpaces": True}) is None


@pytest.mark.parametrize("units", ["utf-8", "utf-16", "utf-32"])
def test_a_place_is_the_same_there_and_back(units: str) -> None:
    """Half of a sign of two units too, which an editor may send."""
    text = "a \ud800 f\r\n× 🙂🙂 e\u0301\u2028\ufeff \udc00x\n"
    lines = Lines(text, units)
    places = [at for at in range(len(text)) if text[at : at + 1] != "\n"]
    assert [lines.offset(*lines.position(at)) for at in places] == places
    assert Lines("🙂f", "utf-16").offset(0, 1) == 0, "in a sign: its start"


def test_positions_outside_the_text_are_taken_as_its_ends(client: Client) -> None:
    client.open("a f")
    assert client.at("completion", 99, 99)["items"]
    client.at("hover", 0, 10_000)


def test_it_ends_when_asked_and_when_the_client_is_gone() -> None:
    with Client() as client:
        client.open("a f")
        client.ask("shutdown", None)
        client.tell("exit", None)
        assert client.process.wait(20) == 0
    with Client() as client:
        client.open("a f")
        assert client.process.stdin is not None
        client.process.stdin.close()
        client.process.wait(20)
        client.process.stdin = None
