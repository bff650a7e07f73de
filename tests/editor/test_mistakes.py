"""Texts with mistakes, as they are while they are typed: an answer to every question, and all of it within the text."""

from __future__ import annotations

import time

import pytest

from blockdsl import editor, zoo
from blockdsl.editor.outline import symbols

from ..thorough import part_of

PATTERNS = (
    "f a f | a*6 f*6 | sandwich(6)",
    "set dim=64, heads=2, rotary_pos_emb; x = (a f)@t*2; stem: x | x<<",
    "a(heads=4, kv_heads=none) & f(glu, activation=silu)>>1/2@u",
    "a ^u f a(kv=u) <u(pop, gain, init=0.5) f # a comment\n a",
    "(a f)*2 => (a c f)*2",
    "f(mult=6..2)*4 (a(max_attend_past=(128, none)) f)*2",
    "set num_tokens=256, max_seq_len=64; macaron(3, cross) | par(4, ratio=2)",
)


def asked(text: str, offset: int) -> None:
    """Ask everything; nothing raises, and every place is one of the text."""
    size = len(text)
    for found in editor.diagnostics(text):
        assert 0 <= found.start <= found.end <= size, (text, found)
        assert found.message
        if found.fix is not None:
            assert 0 <= found.fix.start <= found.fix.end <= size, (text, found)
            assert editor.applied(text, [found.fix]) != text
    for completion in editor.completions(text, offset):
        assert 0 <= completion.start <= offset <= completion.end <= size
    hover = editor.hover(text, offset)
    assert hover is None or 0 <= hover.start <= offset <= hover.end <= size
    at = 0
    for token in editor.tokens(text):
        assert at <= token.start < token.end <= size
        at = token.end
    for symbol in symbols(text):
        assert 0 <= symbol.start <= symbol.name_start < symbol.name_end <= symbol.end <= size


@pytest.mark.parametrize("text", PATTERNS)
def test_every_beginning(text: str) -> None:
    for end in range(len(text) + 1):
        asked(text[:end], end)


@pytest.mark.parametrize("text", PATTERNS)
def test_every_text_that_lacks_a_character(text: str) -> None:
    for at in range(len(text)):
        asked(text[:at] + text[at + 1 :], at)


@pytest.mark.parametrize("name", part_of(zoo.FAMILIES, 4))
def test_published_models_cut_short(name: str) -> None:
    text = zoo.entry(name).text
    for end in range(0, len(text), 7):
        asked(text[:end], end)
        asked(text[:end] + text[end + 1 :], end)


@pytest.mark.parametrize(
    "text",
    [
        "x=a;" * 5000,
        "a@" * 20_000,
        "attn " * 9000,
        "a(" * 9000,
        "(" * 9000,
        "a((((((" * 3000,
        "^u " * 9000,
        " " * 190_000 + "a )",
    ],
)
def test_long_texts_take_time_by_their_length(text: str, untraced: None) -> None:
    start = time.process_time()
    asked(text, len(text))
    assert time.process_time() - start < 30  # a second or two, and hours where it is by the square
