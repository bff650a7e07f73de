"""Labels and what reads them in pictures and in text: what folds, in which words, and which way the lines go."""

from __future__ import annotations

import itertools
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

import blockdsl
from blockdsl import BlockGraph
from blockdsl.draw.layout.picture import scene

from .reading import Line, Picture, check

SIZES = {"dim": 16, "heads": 2, "attn_dim_head": 4}


def graph(pattern: str, **keywords: Any) -> BlockGraph:
    return blockdsl.compile(pattern, **(SIZES | keywords))


def drawn(g: BlockGraph, **options: Any) -> Picture:
    return check(g.to_svg(**options), g, unfolded=options.get("unfold", False))


def beside(picture: Picture) -> list[Line]:
    """The lines of what is read from further up."""
    return [line for line in picture.lines if line.role in ("read", "context", "kv", "values", "scores")]


# Each pattern: how often what it repeats is drawn, how many lines there are for its reads, and the words beside them.
FOLDED = {
    "(^u a f)*6 (<u(pop, cat) a f)*6": ([6, 6], 1, ["6 skips", "last in, first out"]),
    "^x (<x(gain) a f)*12": ([12], 1, []),
    "a ^v f (a(values=v) f)*11": ([11], 1, []),
    "(a ^k f a(kv=k) f)*6": ([6], 1, []),
    "(a(max_attend_past=8) f)*12 | a ^g f (a(kv=g) f)*11": ([12, 11], 1, []),
    "^h (a f <h(all, gain) ^h)*12": ([12], 1, ["all before"]),
    "^h (<h(all, soft) a ^h <h(all, soft) f ^h)*12": ([12], 4, ["all before"]),
    "a ^s f (a(scores=s) ^s f)*5": ([5], 2, []),
    "(a f)*2 ^e (<e(cat) (a f)@core)*8 (a f)*2": ([2, 8, 2], 1, []),
    "(a f)*7 ^b (a f)*4 <b(gain, init=-0.5)": ([7, 4], 1, []),
    "(a f)*6 ^mid | (a c(context=mid) f)*6": ([6, 6], 1, []),
    "(^u a f)*6 (<u(pop) a f)*3": ([6, 3], 1, ["3 skips", "last in, first out"]),
    "(^u a f)*6 <u a f": ([6], 1, ["the last"]),
    "(^u a f)*6 <u(first) a f": ([6], 1, []),  # that is the input
    "f (a ^u f)*6 <u(first) a ^u f <u(0) f <u(all)": ([6], 4, ["the first; all 6"]),
    "(^u a f)*6 (<u(all) a f)*2": ([6, 2], 1, ["all 6"]),
    "(^x (<x a f)*3)*4": ([4, 3], 1, []),
    "^x (a <x f ^x)*5": ([5], 1, []),
    "^x (a <x ^x f <x)*5": ([5], 3, []),
    "(^o (^u a f)*3 (<u(pop) a f)*3)*2 (<o(pop, cat) a f)*2": (
        [2, 3, 3, 2],
        2,
        ["3 skips", "last in, first out", "2 skips", "last in, first out"],
    ),
    "^x (^u <x a f)*4 (<x <u(pop) a f)*4": ([4, 4], 3, ["4 skips", "last in, first out"]),
    "^x (a & <x(gate)/2 & f)*4 ((a f) & (f <x)) <x": ([4], 3, []),
    "^x (<x a f)*3 a ^y (<y a f)*3": ([3, 3], 2, []),
}


@pytest.mark.parametrize("pattern", FOLDED)
def test_reads_fold_where_words_say_which_copy_reads_which(pattern: str) -> None:
    g = graph(pattern)
    repeats, lines, words = FOLDED[pattern]
    picture = drawn(g)
    assert [frame.value for frame in picture.frames if frame.role == "repeat"] == repeats
    assert len(beside(picture)) == lines
    assert [label.words for label in picture.labels] == words
    drawn(g, detail="op")


@pytest.mark.parametrize("pattern", FOLDED)
def test_unfolded_each_read_has_its_lines(pattern: str) -> None:
    g = graph(pattern.replace("*12", "*3").replace("*11", "*2"))
    drawn(g, unfold=True)
    picture = drawn(g, unfold=True, columns=1)
    carried = [what for *_, data in g.nx.edges(data=True) for what in data["carries"]]
    assert len(beside(picture)) == sum(what not in ("stream", "base", "position") for what in carried)
    assert picture.labels == []


def crossed(line: Line, others: list[Line]) -> bool:
    """Whether a line crosses one of another source."""
    return any(
        _cross(one, other)
        for second in others
        if (second.role, second.points[0]) != (line.role, line.points[0]) and second.points[-1] != line.points[-1]
        for one in itertools.pairwise(line.points)
        for other in itertools.pairwise(second.points)
    )


def _cross(one: Any, other: Any) -> bool:
    (ax, ay), (bx, by) = one
    (cx, cy), (dx, dy) = other
    across = min(ax, bx) < (cx + dx) / 2 < max(ax, bx) and min(cy, dy) < (ay + by) / 2 < max(cy, dy)
    return (ay == by and cx == dx and across) or (ax == bx and cy == dy and _cross(other, one))


def test_skips_of_a_u_net_nest() -> None:
    picture = drawn(graph("(^u a f)*6 (<u(pop, cat) a f)*6"), unfold=True, columns=1)
    skips = beside(picture)
    assert {(line.source, line.target) for line in skips} == {
        *{("input", "read5"), ("f1", "read4"), ("f3", "read3")},
        *{("f5", "read2"), ("f7", "read1"), ("f9", "read0")},
    }
    assert not any(crossed(line, skips) for line in skips)
    outer = [max(x for x, _ in line.points) for line in sorted(skips, key=lambda line: line.points[0][1])]
    assert outer == sorted(outer, reverse=True)
    assert len({*outer}) == 6


def test_a_read_shows_how_it_joins_the_stream() -> None:
    g = graph("^x a <x <x(gain)/2@t <x(gate) <x(cat) <x(soft)@s")
    picture = drawn(g)
    assert [picture.node(f"read{i}").words for i in range(5)] == [[], ["gain ×½ @t"], ["gate"], ["cat"], ["soft @s"]]
    assert [bool(picture.node(f"read{i}").circle) for i in range(5)] == [True, True, True, False, False]
    (label,) = picture.of("label")
    assert label.words == ["^x"]
    opened = drawn(g, detail="op")
    assert opened.node("read3").words == ["W[u, x]"]


def test_tooltips_say_what_is_read_from_where_and_how() -> None:
    picture = drawn(graph("a f ^u a <u(gain, init=0.5) f"))
    tip = picture.node("read0").tip
    assert tip.splitlines()[:3] == [
        "read0: <u(gain, init=0.5)",
        "reads u: the stream after f1, added with a learned gain",
        "at first 0.5",
    ]
    assert "1 parameters" in tip
    (label,) = picture.of("label")
    assert label.tip == "u: the stream after f1"
    everywhere = drawn(graph("(^h a f <h(all))*6"), unfold=True).node("read5").tip
    assert "reads h: the input and the stream after read0, … read4 (5 of them), added" in everywhere


def test_a_block_shows_the_label_of_what_it_gives_and_takes() -> None:
    picture = drawn(graph("a ^k f a(kv=k) f"))
    assert picture.node("a0").words == ["a", "Self-attention", "2 heads × 4", "^k"]
    assert picture.node("a2").words == ["a", "Self-attention", "2 heads × 4, kv=k"]
    assert picture.edges("kv") == {("a0", "a2")}


def test_streams_of_further_up_that_an_edit_adds_are_arcs() -> None:
    g = graph("(a f)*4")
    g.nx.add_edge("f1", "a6")
    g.nx.add_edge("input", "f7")
    g.nx.add_edge("a0", "output")
    picture = drawn(g, unfold=True)
    assert {(line.source, line.target) for line in beside(picture)} == {("f1", "a6"), ("input", "f7"), ("a0", "output")}
    assert [node.name for node in picture.of("skip")] == ["a6", "f7", "output"]
    assert picture.node("a0").rect.left == picture.node("a6").rect.left, "one column"


def test_copies_that_read_alike_fold_and_others_do_not() -> None:
    g = graph("(a f)*6")
    g.nx.add_edges_from([("a0", "f3"), ("a0", "f5"), ("f5", "f7"), ("f5", "f9")])
    picture = drawn(g)
    assert [frame.value for frame in picture.frames] == [2, 2]
    assert {(line.source, line.target) for line in beside(picture)} == {("a0", "f3"), ("f3", "f7")}


def test_an_edit_that_no_words_tell_is_drawn_block_by_block() -> None:
    g = graph("(^u a f)*4 (<u(pop) a f)*4")
    for read, source in (("read0", "f5"), ("read1", "input"), ("read2", "f3"), ("read3", "f1")):
        g.nx.remove_edges_from([(s, read) for s in g.sources(read, "read") if s not in g.sources(read, "stream")])
        g.nx.add_edge(source, read, carries=("read",))
    picture = drawn(g, unfold=True)
    assert len(beside(picture)) == 4
    assert len(drawn(g).of("block")) == 16


def test_many_copies_of_many_reads_take_little_room() -> None:
    many, few = (len(graph(f"^h (a f <h(all, gain) ^h)*{n}").to_svg()) for n in (60, 30))
    assert many < 1.05 * few


def test_text_says_which_copy_reads_which() -> None:
    g = graph("^x (^u a ^k f)*3 (<u(pop, cat)/2 a(kv=k) f)*3 <x(gain, init=0.5)@t")
    assert "\n".join(g.to_text().splitlines()[1:]) == dedent(
        """
        input
        │
        │  ^x
        │  (^u a ^k f) ×3
        │     ^u
        │     a ^k                self-attention · 2 heads × 4
        │     f                   feedforward · GELU 64
        │  (<u(cat)/2 a(kv=k) f) ×3
        │     <u(cat)/2           a linear layer over both, in the stream's place · 3 skips, last in, first out
        │     a(kv=k)             self-attention · 2 heads × 4 · takes the keys and values of k · the last
        │     f                   feedforward · GELU 64
        │  <x(gain, init=0.5)@t   added with a learned gain
        │
        output · LayerNorm
        """
    ).strip("\n")


# Random ones ---------------------------------------------------------------------------------------------------------

ITEMS = st.sampled_from(
    [
        "a",
        "f",
        "a ^k",
        "^u",
        "^v",
        "<u",
        "<v(pop, cat)",
        "<u(all, gain)",
        "<u(first)/2",
        "<v(soft)@t",
        "a(kv=k)",
        "a(values=k)",
        "c(context=u)",
        "(a & <u)",
        "((f <v) & a)",
        "(a & f <u)",
        "<v(1)",
    ]
)
BODIES = st.recursive(
    st.lists(ITEMS, min_size=1, max_size=4).map(" ".join),
    lambda inner: st.lists(
        st.tuples(inner, st.integers(1, 4)).map(lambda of: f"({of[0]})*{of[1]}"), min_size=1, max_size=3
    ).map(" ".join),
    max_leaves=4,
)


@given(BODIES, BODIES, st.booleans())
@settings(deadline=None, max_examples=12)
def test_random_wiring_is_drawn(first: str, second: str, unfold: bool) -> None:
    try:
        g = graph(f"^u ^v a ^k f {first} | {second}")
    except ValueError:  # a label that is popped too often, or keys of a block that has none
        reject()
    assume(len(g.nodes("block")) < 60)
    drawn(g, unfold=unfold)
    text = g.to_text()
    assert all(line == line.rstrip() for line in text.splitlines())
    assert g.to_mermaid().count("subgraph") == g.to_dot(fold=True).count("subgraph")


def test_what_an_encoder_gives_enters_a_context_that_is_the_leftmost_of_the_decoder_too() -> None:
    text = "f ((c f (a & (c f))) & (f ((f a) & ((c f f & (f (f & (a f)))) ((f f a & (a a f)) c)))))"
    whole = scene(blockdsl.compile(f"a => {text}", dim=24, heads=2).streams())
    rects = {box.node: box.rect for box in whole.boxes if box.rect}
    (way,) = [edge.points for edge in whole.edges if edge.source == "encoder.output"]
    context = rects["decoder.context"]
    assert way[-1] == (context.x + context.width / 2, context.y)
    for (x0, y0), (x1, y1) in itertools.pairwise(way):
        left, right, top, bottom = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
        assert not [n for n, r in rects.items() if r.x < right and left < r.right and r.y < bottom and top < r.bottom]
