"""Runs of plain blocks are read block by block: all is as when each token of the text is read, spans and errors too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockdsl import PatternError
from blockdsl.language.parse import _block, _parse_plain, parse_tree
from blockdsl.language.runs import cut

RUN = "a f(glu) a(heads=4, causal) f f a a(heads=4, causal) f a f"


def told(read: Callable[[str], Any], text: str) -> Any:
    """A tree with all its spans, which `==` leaves out; or the error in its words."""
    try:
        return _with_spans(read(text))
    except PatternError as error:
        return str(error)


def _with_spans(value: Any) -> Any:
    if is_dataclass(value):
        return type(value).__name__, *(_with_spans(getattr(value, field.name)) for field in fields(value))
    return tuple(map(_with_spans, value)) if isinstance(value, tuple) else value


def plainly(text: str) -> Any:
    return _parse_plain(text, "start")


def ran(text: str) -> list[list[str]]:
    """The runs that are found in a text, as the names of their blocks."""
    return [[block.name for block in run] for run in cut(text, _block)[1].values()]


def test_a_run_is_all_but_the_blocks_that_something_beside_it_may_take() -> None:
    assert ran(RUN) == [["f", "a", "f", "f", "a", "a", "f", "a"]]
    assert told(parse_tree, RUN) == told(plainly, RUN)
    beside = ran(f"{RUN}\n| {RUN} => (c {RUN} c)*2")
    assert ["".join(names) for names in beside] == ["faffaafaf", "faffaafa", "afaffaafaf"]


@pytest.mark.parametrize(
    "text",
    [
        f"{RUN} *6",
        f"{RUN} # a comment\n *6",
        f"{RUN} / 2 {RUN} @x {RUN} >>1",
        f"{RUN} & {RUN} & {RUN}",
        f"x = {RUN}; y = {RUN} ; x y {RUN} ^u {RUN} <u {RUN} <u(all) {RUN}",
        f"stem : {RUN} | rest: {RUN} =>{RUN} c",
        f"({RUN} ( {RUN} )*2 )@core*6 {RUN}",
        f"# {RUN} \n a # {RUN} \n {RUN} # {RUN}",
        f"2f {RUN}",
        f"set {RUN}",
        f"set dim=64, {RUN}; {RUN}",
        f"a(heads=4 {RUN} )",
        f"{RUN} = {RUN}",
        f"{RUN} ü",
        f"{RUN} a(heads=)",
        f"a(heads=) {RUN}",
        f"{RUN} a(set) set {RUN} x",
        f"{RUN} a( {RUN}",
        " a(kv=(1, 2))" * 12,
        "\n".join([RUN] * 3) + "\r\n\f\t",
    ],
)
def test_what_stands_beside_a_run(text: str) -> None:
    assert told(parse_tree, text) == told(plainly, text)


BESIDE = [
    *("(", ")", "*", "*6", "/", "/2", "@", "@x", "&", "|", ";", "=", "=>", ">>1", ":", "^u", "<u", "<u(all)", "set"),
    *("set dim=64;", "x =", "x", "#", "# a\n", ",", "6", "2f", ".5", "-1", "a(", "a(heads=(1, 2))", "f( )", "a(b c)"),
]


@given(
    st.lists(
        st.one_of(
            st.sampled_from(BESIDE),
            st.lists(st.sampled_from(["a", "f(glu)", "a(heads=4)", "c"]), min_size=8, max_size=14).map(" ".join),
        ),
        max_size=9,
    ),
    st.sampled_from([" ", "  ", "\n", ""]),
)
def test_any_text_is_read_as_without_runs(parts: list[str], space: str) -> None:
    text = space.join(parts)
    assert told(parse_tree, text) == told(plainly, text)


def test_each_writing_of_a_block_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def noted(text: str) -> Any:
        read.append(text)
        return _parse_plain(text, "start")

    monkeypatch.setattr("blockdsl.language.parse._parse_plain", lambda text, start: noted(text))
    _block.cache_clear()
    parse_tree(" ".join(["a(heads=4)", "f(glu)"] * 1000))
    assert sorted(read) == ["a(heads=4)", "f(glu)"]
