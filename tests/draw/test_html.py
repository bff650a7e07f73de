"""The HTML page by its structure; `test_browser` drives it."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import blockdsl
from blockdsl import BlockGraph, Measurement, UserError
from blockdsl.draw import page
from blockdsl.draw.forms.packed import Packed

from .pages import parsed, unpacked

PATTERN = "stem: f a f | deep: (a(heads=4)>>1 f(glu)/2)*6 ((a & f) f@x)*3 | sandwich(6)"
EVIL = "</script><img src=x onerror='document.title=1'>&\"{{data}}\x1f5\ud800"


def graph(pattern: str = PATTERN, **settings: Any) -> BlockGraph:
    return blockdsl.compile(pattern, **({"dim": 64, "heads": 4} | settings))


def data(g: BlockGraph, **options: Any) -> dict[str, Any]:
    return parsed(g.to_html(**options)).data


def names(read: dict[str, Any], numbers: list[int]) -> list[str]:
    return [read["nodes"][number][0] for number in numbers]


def row(read: dict[str, Any], node: str) -> dict[str, Any]:
    return read["rows"][dict(read["nodes"])[node]]


# The page around the data ------------------------------------------------------------------------------------------


def test_what_the_page_refers_to_is_in_it() -> None:
    read = parsed(graph().to_html())
    ids = [element.attrs["id"] for element in read.elements if "id" in element.attrs]
    assert len({*ids}) == len(ids)
    for element in read.elements:
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert {*(element.attrs.get(name) or "").split()} <= {*ids, "details-title"}  # that one the script makes
    assert {element.tag for element in read.elements} >= {"title", "header", "main", "aside", "form", "noscript"}
    (root,) = [element for element in read.elements if element.tag == "html"]
    assert root.attrs["lang"] == "en"


def test_every_control_has_a_name() -> None:
    controls = [e for e in parsed(graph().to_html()).elements if e.tag in ("button", "input")]
    assert len(controls) == 8
    for control in controls:
        name = control.attrs.get("aria-label") or control.text
        assert name
        assert name.isascii(), name  # not a sign alone


def test_it_asks_for_nothing() -> None:
    text = graph().to_html()
    assert "http:" not in text
    assert "https:" not in text
    read = parsed(text)
    for element in read.elements:
        assert not {"src", "href", "action"} & {*element.attrs}
        assert element.tag != "link"
    assert "@import" not in text
    assert "url(" not in text
    (policy,) = [e.attrs["content"] for e in read.elements if e.attrs.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in (policy or "")


def test_without_scripts_there_is_the_drawing_in_characters() -> None:
    read = parsed(graph().to_html())
    (drawn,) = [element for element in read.elements if element.tag == "pre"]
    assert drawn.text == graph().to_text()


def test_it_is_written_and_options_are_checked(tmp_path: Path) -> None:
    text = graph().to_html(tmp_path / "x.html", detail="op", color="flops")
    assert (tmp_path / "x.html").read_text(encoding="utf-8") == text
    with pytest.raises(UserError, match="color must be"):
        graph().to_html(color="hue")
    with pytest.raises(UserError, match="unknown dtype"):
        graph().to_html(dtype="float3")
    with pytest.raises(UserError, match="seq_len must be"):
        graph().to_html(seq_len=-1)
    with pytest.raises(UserError, match="there is no graph to draw"):
        page({})


# Size --------------------------------------------------------------------------------------------------------------


def mixed(seed: int) -> str:
    """A hundred blocks, few of them like the ones before."""
    sorts = ["a", "f", "a(num_mem_kv=2)", "f(glu)", "c", "f/2", "a>>1", "(a & f)", "f@x"]
    chosen = random.Random(seed).choices(sorts, k=100)
    return " ".join(chosen)


@pytest.mark.parametrize("detail", ["block", "op"])
@pytest.mark.parametrize(
    ("pattern", "settings"),
    [
        ("(a f)*50", {}),
        ("(a f)*50", {"rotary_pos_emb": True, "num_tokens": 300, "max_seq_len": 64}),
        (mixed(1), {}),
        (mixed(2), {"rotary_pos_emb": True}),
        (" | ".join(["a f"] * 50), {"residual_attn": True}),
    ],
)
def test_a_hundred_blocks_take_less_than_60_kilobytes(pattern: str, settings: dict[str, Any], detail: str) -> None:
    g = graph(pattern, **settings)
    assert len(g.nodes("block")) >= 100
    assert len(g.to_html(detail=detail).encode()) < 60_000


# The pictures ------------------------------------------------------------------------------------------------------


def bare(svg: str) -> str:
    """A picture without what the page has elsewhere: its style, its tooltips, the names of copies and of ends."""
    svg = re.sub(r"<style>.*?</style>\n", "", svg, flags=re.DOTALL)
    head, rest = svg.split("</title>", 1)
    rest = re.sub(r"\n<title>.*?</title>", "", rest, flags=re.DOTALL)
    return head + "</title>" + re.sub(r' data-(nodes|from|to)="[^"]*"', r' data-\1=""', rest)


@pytest.mark.parametrize("detail", ["block", "op"])
@pytest.mark.parametrize(
    "pattern", [PATTERN, "(a c f)*3", "a (f a f) & f a", "^x (a ^k f <x(gain))*3 (a(kv=k) <x f)*2"]
)
def test_the_pictures_are_those_of_to_svg(pattern: str, detail: str) -> None:
    g = graph(pattern, rotary_pos_emb=True, num_tokens=300, max_seq_len=64)
    read = data(g, detail=detail)
    for picture, unfold in zip(read["pictures"], (False, True), strict=False):
        assert unpacked(read["shapes"], picture["lines"]) == bare(g.to_svg(detail=detail, unfold=unfold))
    assert "prefers-color-scheme:dark" in read["style"]


@pytest.mark.parametrize("pattern", [PATTERN, "(a (f a f) & f a@x)*6"])
def test_every_node_is_in_the_table_and_in_each_picture_once(pattern: str) -> None:
    g = graph(pattern, rotary_pos_emb=True)
    read = data(g)
    assert [node for node, _ in read["nodes"]] == [*g.nx]
    assert len(read["pictures"]) == 2
    for picture in read["pictures"]:
        drawn = re.findall(r'data-node="([^"]*)"', unpacked(read["shapes"], picture["lines"]))
        assert [names(read, box)[0] for box in picture["boxes"]] == drawn
        assert Counter(node for box in picture["boxes"] for node in names(read, box)) == Counter(g.nx)
    assert max(map(len, read["pictures"][0]["boxes"])) == 6
    assert max(map(len, read["pictures"][1]["boxes"])) == 1


def test_a_pattern_without_repeats_has_one_picture() -> None:
    assert len(data(graph("a f c"))["pictures"]) == 1


lines = st.lists(st.text(st.sampled_from("ab ML-0123456789.\"='"), max_size=30), min_size=1, max_size=8)


@given(st.lists(lines, min_size=1, max_size=2))
def test_what_is_packed_comes_back(pictures: list[list[str]]) -> None:
    packed = Packed()
    texts = ["\n".join(picture) for picture in pictures]
    found = [packed.add(text) for text in texts]
    assert [unpacked(packed.shapes, each) for each in found] == texts


def test_lines_that_differ_in_numbers_share_a_shape() -> None:
    packed = Packed()
    assert packed.add('<a x="1"/>\n<a x="2.5"/>\n<a x="4"/>') == [[0, 100], [0, 150], [0, 150]]
    assert packed.shapes == ['<a x="\x1f"/>']


# What is told of a node --------------------------------------------------------------------------------------------


def test_costs_and_shapes() -> None:
    # By hand, with dim 8, 2 heads of 3, rows of 5: q, k and v from a map of 8 to 18, out from 6 to 8, LayerNorm of 16.
    g = blockdsl.compile("(a f)*2", dim=8, heads=2, attn_dim_head=3)
    read = data(g, seq_len=5, dtype="bfloat16")
    a = row(read, "a0")
    assert a["parameters"] == str(8 * 18 + 6 * 8 + 16)
    assert a["flops"] == str(5 * 2 * (8 * 18 + 6 * 8) + 2 * 2 * 5 * 5 * 6)
    assert a["cache"] == str(2 * 5 * 6 * 2)
    assert ["to_qkv.weight", "18 × 8"] in a["shapes"]
    assert (read["at"], read["dtype"]) == ("5 tokens", "bfloat16")
    assert "cache" not in row(read, "f1")
    assert dict(read["nodes"])["a0"] == dict(read["nodes"])["a2"]  # one row for both


def test_options_that_the_text_sets_and_that_are_worth_telling() -> None:
    read = data(graph("a(heads=2) a", sandwich_norm=True))
    weights = {name: (value, weight) for name, value, weight in row(read, "a0")["options"]}
    assert weights["heads"] == ("2", 2)
    assert weights["sandwich_norm"] == ("true", 1)
    assert weights["dim_head"] == ("64", 1)
    assert weights["use_rmsnorm"] == ("false", 0)
    assert {name for name, _, _ in row(read, "a0")["options"]} == {*graph("a").nx.nodes["a0"]["options"]}


def test_notes_ties_and_stages() -> None:
    read = data(graph("one: a>>1 f/2@x | f@x/2", rotary_pos_emb=True))
    assert row(read, "a0")["notes"] == ["rotary 32", "tokens shifted by 1"]
    assert row(read, "f1")["notes"] == ["branch × 0.5"]
    assert row(read, "f1")["tie"] == row(read, "f2")["tie"] == "x"
    assert row(read, "f1")["parameters"] == row(read, "f2")["parameters"] != "0"
    assert [row(read, node)["stage"] for node in ("a0", "f2")] == ["1: one", "2"]
    ((_, stages),) = read["stages"]
    assert [line[:2] for line in stages] == [["1: one", "2"], ["2", "1"], ["head", "0"]]
    assert stages[0][2] == str(sum(int(row(read, node)["parameters"]) for node in ("a0", "f1")))
    assert stages[1][2] == "0"  # tied to the first


def test_counts_are_text_for_a_script_has_no_numbers_that_large() -> None:
    read = data(graph("a", dim=10**9, heads=1), seq_len=10**6)
    assert int(row(read, "a0")["flops"]) > 2**53
    assert isinstance(row(read, "a0")["flops"], str)


def test_a_measurement_is_in_the_notes_and_on_the_blocks_of_both_pictures() -> None:
    overlay = Measurement("stream norm", "", {"a0": 0.51234, "f1": 3.0})
    read = data(graph("(a f)*2"), overlay=overlay)
    assert [row(read, node)["notes"] for node in ("a0", "f1", "a2")] == [
        ["stream norm: 0.512"],
        ["stream norm: 3"],
        [],
    ]
    folded, unfolded = (unpacked(read["shapes"], picture["lines"]) for picture in read["pictures"])
    assert "1 of 2 measured" in folded
    assert "1 of 2" not in unfolded
    assert "0.512" in unfolded
    assert read["unfolded"] is True
    assert data(graph("(a f)*2"), overlay=overlay, unfold=False)["unfolded"] is False


def test_a_difference_is_a_page_of_both_graphs(tmp_path: Path) -> None:
    found = graph("(a f)*2").diff(graph("a(heads=2) f a f f"))
    text = found.to_html(tmp_path / "x.html", seq_len=7)
    assert (tmp_path / "x.html").read_text(encoding="utf-8") == text
    read = parsed(text).data
    assert row(read, "before.a0")["notes"] == row(read, "after.a0")["notes"] == ["changed"]
    assert row(read, "before.f1")["notes"] == ["same"]
    assert sorted(row(read, f"after.{node}")["notes"][0] for node in ("f3", "f4")) == ["added", "same"]
    assert read["at"] == "7 tokens"
    assert unpacked(read["shapes"], read["pictures"][0]["lines"]) == bare(found.to_svg(seq_len=7))


# The pattern's text ------------------------------------------------------------------------------------------------


def text_of(g: BlockGraph) -> list[tuple[str, list[str]]]:
    read = data(g)
    ((_, bits),) = read["texts"]
    return [(text, names(read, nodes)) for text, nodes in bits]


def test_each_block_of_the_text_knows_its_nodes() -> None:
    assert text_of(graph("(a  f(glu))*2 macaron(1) # so")) == [
        ("(", []),
        ("a", ["a0", "a2"]),
        (" ", []),
        ("f(glu)", ["f1", "f3"]),
        (")*2 ", []),
        ("macaron(1)", ["f4", "a5", "f6"]),
    ]


def test_suffixes_are_part_of_a_block() -> None:
    bits = text_of(graph("a>>1/2 f(glu)/0.00001@x sandwich(1)@y (a f)/2 f(glu)@x/0.00001"))
    assert [text for text, nodes in bits if nodes] == [
        "a>>1/2",
        "f(glu)/1e-05@x",
        "sandwich(1)@y",
        "a",
        "f",
        "f(glu)/1e-05@x",
    ]


def test_blocks_of_a_definition_stand_where_it_is_defined() -> None:
    bits = text_of(graph("layer = a f; layer*2 f"))
    assert "".join(text for text, _ in bits) == "layer = a f;\nlayer*2 f"
    assert [bit for bit in bits if bit[1]] == [("a", ["a0", "a2"]), ("f", ["f1", "f3"]), ("f", ["f4"])]


def test_the_text_of_an_edited_graph_is_the_new_one_with_the_blocks_names() -> None:
    g = graph("(a f)*2")
    g.nx.remove_node("f1")
    g.nx.add_edge("a0", "a2")
    bits = text_of(g)
    assert "".join(text for text, _ in bits).split(";")[-1].strip() == "a a f"
    assert [bit for bit in bits if bit[1]] == [("a", ["a0"]), ("a", ["a2"]), ("f", ["f3"])]
    g.nx.remove_edge("a0", "a2")  # a fork, which has no text
    g.nx.add_edges_from([("input", "a2"), ("a0", "f3")])
    assert text_of(g) == [("edited from (a f)*2", [])]


def test_a_text_that_cannot_be_read_is_shown() -> None:
    g = graph("a f")
    g.nx.graph["pattern"] = "by hand ("
    assert text_of(g) == [("by hand (", [])]


def test_every_block_of_a_long_pattern_is_in_its_text() -> None:
    g = graph()
    bits = text_of(g)
    assert "".join(text for text, _ in bits) == blockdsl.format_text(PATTERN).rstrip("\n")
    assert sorted(node for _, nodes in bits for node in nodes) == sorted(g.nodes("block"))


# Graphs side by side, and names that would break out --------------------------------------------------------------


def test_graphs_side_by_side() -> None:
    read = parsed(page({"encoder": graph("(a f)*3"), "decoder": graph("(a c f)*3", causal=True)})).data
    every = [node for node, _ in read["nodes"]]
    assert {"encoder.a0", "decoder.c1"} <= {*every}
    assert [name for name, _ in read["texts"]] == ["encoder", "decoder"]
    assert [(t, names(read, n)) for t, n in read["texts"][1][1] if t == "c"] == [
        ("c", ["decoder.c1", "decoder.c4", "decoder.c7"])
    ]
    assert [(name, len(stages)) for name, stages in read["stages"]] == [("encoder", 2), ("decoder", 2)]


@pytest.fixture
def evil() -> Iterator[BlockGraph]:
    """A graph in which whatever can be, is called something that would end a script or start an image."""
    option = blockdsl.Option("style", str, EVIL, EVIL)
    blockdsl.register(
        blockdsl.Kind(
            "evil", EVIL, (option,), shapes=lambda o: {EVIL: (1,)}, flops=lambda o, sizes: 1, module="torch.nn:Linear"
        )
    )
    g = graph("evil f")
    g.nx.graph["stages"] = [EVIL]
    g.nx.graph["pattern"] = EVIL
    yield g
    blockdsl.unregister("evil")


def test_no_name_breaks_out(evil: BlockGraph) -> None:
    plain = parsed(graph("a f").to_html())
    for text in (evil.to_html(), page({EVIL: evil, "b": evil})):
        read = parsed(text)
        assert [(e.tag, e.attrs) for e in read.elements] == [(e.tag, e.attrs) for e in plain.elements]
        assert "<img" not in text
    text.encode()
    assert row(read.data, "b.evil0")["title"] == EVIL
    assert [EVIL, "1"] in row(read.data, "b.evil0")["shapes"]


def test_an_encoder_is_no_option_of_the_context_that_it_gives() -> None:
    """Its drawing tells it; the graph itself has no words, but for its address in memory."""
    one, two = blockdsl.compile("f(mult=2)", dim=64), blockdsl.compile("a f => c", dim=64)
    (context,) = [row for row in parsed(one.diff(two).to_html()).data["rows"] if row["title"].lower() == "context"]
    assert context["options"] == [["tie_token_emb", "false", 0]]
