"""Marks that are used are explained, and a picture is told in sentences."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

import blockdsl
from blockdsl.draw import side_by_side
from blockdsl.measurement import short

from .reading import SVG, check

MARKS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("(a f)*2", {}, []),
    ("(a & f)*2", {}, []),
    ("(a f)*2", {"gate_residual": True}, ["a GRU cell in place of the sum"]),
    ("(a f)*2", {"num_residual_streams": 2}, ["mixes the residual streams"]),
    ("(a f)*2", {"residual_attn": True}, ["scores that a later block adds to its own"]),
    ("((a f) & f)*2", {}, ["what this branch added"]),
    ("a ^k f a(kv=k) f", {}, ["keys and values for a later block"]),
    ("a ^v f a(values=v) f", {}, ["values for a later block"]),
    ("^u a f <u", {}, ["read further down", "added from further up"]),
    ("(^u a f)*3 (<u(pop) a f)*3", {}, ["read further down", "several added from further up"]),
]


@pytest.mark.parametrize(("pattern", "settings", "said"), MARKS)
def test_the_legend_has_the_marks_that_explain_themselves_to_nobody(
    pattern: str, settings: dict[str, Any], said: list[str]
) -> None:
    graph = blockdsl.compile(pattern, dim=32, heads=2, **settings)
    svg = graph.to_svg()
    picture = check(svg, graph)
    assert [key.words for key in picture.keys] == said
    groups = [group for group in ElementTree.fromstring(svg).iter(f"{SVG}g") if group.get("class") == "key"]
    for group in groups:  # each shows what it speaks of, and that is in the picture
        shown = [e.get("d") or e.get("class") for e in group.iter() if e.tag in (f"{SVG}path", f"{SVG}circle")]
        assert shown


def test_colours_come_before_marks_and_one_legend_is_enough() -> None:
    graph = blockdsl.compile("((a f) & f)*2", dim=32, heads=2)
    keys = [key.words for key in check(graph.to_svg(color="tied"), graph).keys]
    assert keys == ["parameters of its own", "what this branch added"]
    two = check(side_by_side({"x": graph, "y": graph}), graph, graph, names=("x", "y"))
    assert [key.words for key in two.keys] == ["what this branch added"]


def told(svg: str) -> str:
    return ElementTree.fromstring(svg).findtext(f"{SVG}desc") or ""


def test_a_picture_is_told_in_sentences() -> None:
    graph = blockdsl.compile("x: (a>>1 f/2)*3 | f & (a f)", dim=16, heads=2, attn_dim_head=4)
    assert told(graph.to_svg()) == (
        "Input: dim 16. Stage 1: x: 3 times (self-attention (2 heads × 4, shift 1), feedforward (GELU 64, ×½)). "
        "Stage 2: in parallel (feedforward (GELU 64)) and (self-attention (2 heads × 4), feedforward (GELU 64)). "
        "Output: LayerNorm."
    )
    reads = blockdsl.compile("^u a f <u(gain)", dim=16, heads=2, attn_dim_head=4).to_svg()
    assert "reads u: the input, added with a learned gain" in told(reads)
    opened = blockdsl.compile("f", dim=16).to_svg(detail="op")
    assert "Feedforward (LayerNorm, linear 16 → 64 + bias, GELU, linear 64 → 16 + bias)" in told(opened)
    assert "12 times (" in told(blockdsl.compile("(a f)*12 => (a c f)*12", dim=16).to_svg())
    long = told(blockdsl.compile(" ".join(f"f(inner={i})" for i in range(1, 300)), dim=16).to_svg())
    assert len(long) == 2000
    assert long.endswith("…")


def test_a_picture_has_a_name() -> None:
    root = ElementTree.fromstring(blockdsl.compile("(a f)*2", dim=16, heads=2, attn_dim_head=4).to_svg())
    title = "dim 16 · 2 heads of 4 · pre-norm LayerNorm · 4 blocks · 5,440 parameters"
    assert root.findtext(f"{SVG}title") == root.get("aria-label") == title


def test_a_number_that_rounds_up_has_the_next_letter() -> None:
    assert [short(n) for n in (999_885_952, 999_400_000, 999.6, 8_030_261_248)] == ["1 G", "999 M", "1 k", "8.03 G"]


def test_parameters_are_told_in_billions_above_a_picture_and_on_its_blocks() -> None:
    svg = blockdsl.compile("f*4", dim=8192).to_svg(color="params")
    assert "2.15 B parameters" in svg
    assert "G" not in "".join(ElementTree.fromstring(svg).itertext()).replace("GELU", "")
    huge = blockdsl.compile("f(mult=16)", dim=8192).to_svg(color="params")
    assert ">2.15 B<" in huge
