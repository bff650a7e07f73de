"""What is worked out for less than all of a picture: its extent, how many columns it needs, and its alt text."""

from __future__ import annotations

from typing import Any

import pytest

import blockdsl
from blockdsl.draw.color.colors import colors
from blockdsl.draw.layout.picture import Picture
from blockdsl.draw.layout.scene import Edge, Scene, Text
from blockdsl.draw.parts import DrawnBlock, DrawnRepeat
from blockdsl.draw.tree import tree
from blockdsl.draw.words.alt import MOST, alt_text


def test_an_extent_follows_what_is_added_and_what_is_put_in_another_place() -> None:
    def edge(x: float) -> Edge:
        return Edge("rail", "", "", ((0.0, 0.0), (x, 1.0)))

    scene = Scene("", edges=[edge(1)])
    untouched = Scene("", edges=[edge(1)])
    assert (scene.extent.width, scene.extent.height) == (1, 1)
    assert scene == untouched, "what was asked is no part of it"
    scene.edges.append(edge(3))
    assert scene.extent.width == 3
    scene.labels.append(Text(-2.0, 9.0, "a", "note", "end"))
    assert scene.extent.x < -2
    scene.edges = [edge(2)]  # fewer, and another list
    scene.edges = [edge(99), edge(5)]
    assert scene.extent.right == 99
    del scene.edges[0]
    assert scene.extent.right == 5


@pytest.mark.parametrize("pattern", ["(a f)*80", "a f " * 60 + "(a(kv_heads=2) f/2 a@x f@y)*9", "(a f | f a f)*25"])
@pytest.mark.parametrize("settings", [{}, {"pre_norm": False}, {"residual_attn": True}], ids=str)
def test_columns_are_counted_as_if_all_were_in_one(pattern: str, settings: dict[str, Any]) -> None:
    graph = blockdsl.compile(pattern, dim=64, heads=4, **settings)
    drawn = Picture(graph, "block", colors({"": graph}, "kind", None, 8)[""], 8)
    drawn.column.begin(tree(drawn.captions, drawn.captions.items or (), unfold=True))
    stages = drawn.column.drawn.stages
    whole = drawn.column._strip(stages, 0.0, graph.start)
    assert drawn.column._width() == whole.left + whole.right
    around = sum(drawn.column.heading(stage, False) + drawn.column.foot for stage, _ in stages)
    assert sum(drawn.column.height(parts) for _, parts in stages) + around == whole.y


@pytest.mark.parametrize("count", [1, 30, 250, 3000])
def test_an_alt_text_is_the_beginning_of_all_there_is_to_say(count: int) -> None:
    blocks = tuple(DrawnBlock((f"block {i}",)) for i in range(count))
    parts = (blocks[0], DrawnRepeat(blocks, 7), *blocks)
    inside = ", ".join(f"block {i}" for i in range(count))
    every = f"Enters. Stage 1: block 0, 7 times ({inside}), {inside}. Leaves."
    said = alt_text("enters", [("stage 1", parts)], "leaves", lambda part: part.node)
    assert said == (every if len(every) <= MOST else every[: MOST - 1] + "…")
