"""The picture of a difference: what belongs together is at one height, and what is alike is folded."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blockdsl
from blockdsl import BlockGraph

from .reading import Node, Picture, check_cuts, check_ends, check_lanes, check_places, check_ways, read


def graph(pattern: str, **given: Any) -> BlockGraph:
    return blockdsl.compile(pattern, **{"dim": 32, "heads": 2, **given})


def drawn(before: BlockGraph, after: BlockGraph, **options: Any) -> Picture:
    """The picture, judged by all that holds of every one, and by what holds of every difference."""
    found = before.diff(after)
    picture = read(found.to_svg(**options))
    for judge in (check_places, check_ways, check_ends, check_lanes, check_cuts):
        judge(picture)
    tops = {node: box.rect.top for box in picture.nodes if box.rect for node in box.nodes}
    for one, other in found.pairs:
        if (
            found.before.node_type(one) == "block"
            and not _branch(found.before, one)
            and not _branch(found.after, other)
        ):
            assert tops[f"before.{one}"] == tops[f"after.{other}"], (one, other)
    return picture


def _branch(g: blockdsl.graph.graph.Graph, node: str) -> bool:
    return any(g.node_type(reader) == "sum" for reader in g.nx.succ[node])


def edited() -> tuple[BlockGraph, BlockGraph]:
    before = graph("(a f)*6")
    after = before.copy()
    after.nx.add_edge("f1", "a6")
    after.insert("f5", "f(glu)")
    after.replace("a8", "a(heads=1)")
    after.remove("f3")
    return before, after


PAIRS: dict[str, tuple[BlockGraph, BlockGraph]] = {
    "models": (
        graph("a*2 f*2", causal=True, num_tokens=50, max_seq_len=16),
        graph("(a(kv_heads=1) f(glu))*4", causal=True, use_rmsnorm=True, dim=64, rotary_pos_emb=True, num_tokens=60, max_seq_len=0),
    ),
    "one option": (graph("(a f)*12"), graph("(a f)*6 a(heads=4) f (a f)*5")),
    "inserted": (graph("(a f)*6"), graph("(a f)*3 f(glu) (a f)*3")),
    "macaron": (graph("macaron(3)"), graph("(a f)*3")),
    "edited": edited(),
    "nothing in common": (graph("(a f)*3", causal=True), graph("(c gla)*4", causal=True)),
    "branches": (graph("(a & f) a f"), graph("(a & f(glu)) a f")),
    "branches or none": (graph("(a & f) a"), graph("a f a")),
    "stages": (graph("x: (a f)*3 | y: (a f)*3"), graph("x: (a f)*3 | y with a long name: (a f(glu))*3 | f".replace(" with a long name", "_with_a_long_name_indeed"))),
    "stages or none": (graph("a f a f"), graph("a f | a f")),
    "wiring": (graph("^u (a f)*3 <u a", rotary_pos_emb=True), graph("^u (a f)*3 <u(gain) a", rel_pos_bias=True)),
    "scores": (graph("(a f)*4", residual_attn=True), graph("(a f)*5", residual_attn=True)),
}  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"unfold": True}, {"detail": "op"}, {"columns": 2}], ids=str)
@pytest.mark.parametrize("name", PAIRS)
def test_what_belongs_together_is_at_one_height(name: str, options: dict[str, Any]) -> None:
    drawn(*PAIRS[name], **options)


def test_a_run_that_is_alike_is_one_box_and_the_headline_counts() -> None:
    picture = drawn(*PAIRS["one option"])
    boxes = [(box.name, box.words) for box in sorted(picture.nodes, key=_top) if box.name.startswith("before")]
    assert boxes[1:4] == [
        ("before.a0", ["12 blocks alike", "(a f) ×6"]),
        ("before.a12", ["a", "Self-attention", "2 heads × 64", "~"]),
        ("before.f13", ["11 blocks alike", "f (a f) ×5"]),
    ]
    assert picture.node("after.a12").words == ["a", "Self-attention", "4 heads × 64", "heads 2 → 4", "~"]
    assert picture.head[0].words == "23 blocks alike · 1 changed"
    assert [len(box.nodes) for box in picture.of("alike")] == [12, 11, 12, 11]
    assert [key.words for key in picture.keys] == ["alike", "changed", "~"]


def _top(node: Node) -> float:
    return (node.rect or node.circle).top  # type: ignore[union-attr]


def test_three_alike_are_drawn_each() -> None:
    assert not drawn(graph("a f a f(glu)"), graph("a f a f")).of("alike")
    assert len(drawn(graph("a f a f f(glu)"), graph("a f a f f")).of("alike")) == 2
    assert not drawn(graph("(a f)*6"), graph("(a f)*6")).of("alike"), "no differences"


def test_what_only_one_has_is_beside_what_only_the_other_has_or_beside_nothing() -> None:
    picture = drawn(graph("a f(glu) a(heads=1)", causal=True), graph("a c gla a(heads=1)", causal=True))
    assert picture.node("before.f1").rect.top == picture.node("after.c1").rect.top  # type: ignore[union-attr]
    assert picture.node("before.f1").words[-1] == "−"
    assert picture.node("after.c1").words[-1] == "+"


def test_what_a_change_says_of_an_option_is_not_said_above_it_too() -> None:
    picture = drawn(graph("a(qkv_bias, out_bias) f"), graph("a(out_bias, qk_scale=2) f"))
    before, after = (" ".join(picture.node(f"{side}.a0").words) for side in ("before", "after"))
    assert "qkv_bias" in before
    assert (after.count("qkv_bias"), after.count("qk_scale")) == (1, 1)
    assert (before.count("out_bias"), after.count("out_bias")) == (1, 1)  # it did not change


def test_changes_of_the_whole_stack_are_at_its_head_and_not_on_each_block() -> None:
    before, after = graph("(a f)*3", causal=True), graph("(a f)*3", use_rmsnorm=True, dim=64, rotary_pos_emb=True)
    picture = drawn(before, after)
    head = " · ".join(line.words for line in picture.head)
    assert "dim 32 → 64" in head
    assert "causal true → false" in head
    assert "pre-norm LayerNorm → pre-norm RMSNorm" in head
    assert "positions none → rotary 32" in head
    words = [word for box in picture.of("block") for word in box.words]
    assert not [word for word in words if "rmsnorm" in word]
    assert "alike:" not in head


def test_a_shift_that_all_blocks_change_is_told_once() -> None:
    picture = drawn(graph("a f", shift_tokens=1), graph("a f"))
    assert "shift 1 → 0" in " · ".join(line.words for line in picture.head)
    assert not [word for box in picture.of("block") for word in box.words if "→" in word]


def test_many_that_only_one_has_go_on_in_other_columns() -> None:
    many = " ".join(f"f(mult={i + 1})" for i in range(50))
    picture = drawn(graph("a"), graph(f"a {many}"))
    assert picture.width > 0.5 * picture.height


def test_rows_fold_where_both_sides_are_alike() -> None:
    picture = drawn(graph("(a f)*6"), graph("(a f(glu))*6"))
    assert sorted((frame.role, frame.value) for frame in picture.frames) == [("repeat", 6)] * 2
    assert picture.node("after.f1").words[-2:] == ["glu false → true", "~"]


def test_a_pair_of_streams_is_two_pairs_one_below_the_other() -> None:
    before = blockdsl.compile("(a f)*4 => (a c f)*2", dim=32, heads=2)
    after = blockdsl.compile("(a f)*5 => (a c f(glu))*2", dim=32, heads=2)
    picture = read(before.diff(after).to_svg())
    check_places(picture)
    check_ways(picture)
    heads = [line.words for line in sorted(picture.head, key=lambda line: line.area.top)]
    assert [words for words in heads if not words.startswith(("differ", "alike"))] == [
        "encoder", "8 blocks alike · 2 added", "decoder", "4 blocks alike · 2 changed",
    ]  # fmt: skip
    said = str(before.diff(after)).replace("->", "→").splitlines()
    differ = [line for line in said if line.startswith("differ")]
    assert [line for line in heads if line.startswith("differ")] == differ  # each of its own stream
    tops = {box.name: box.rect.top for box in picture.nodes if box.rect}
    assert tops["decoder before.input"] > tops["encoder before.output"]
    assert tops["decoder before.c1"] == tops["decoder after.c1"]


def test_a_graph_without_a_stream_is_drawn_as_it_is() -> None:
    lone = graph("a f")
    lone.nx.remove_edges_from([*lone.nx.edges])
    svg = lone.diff(graph("a f")).to_svg()
    assert {"before.a0", "after.a0"} <= {box.name for box in read(svg).nodes}


def test_all_formats_and_both_themes() -> None:
    found = PAIRS["edited"][0].diff(PAIRS["edited"][1])
    assert found.to_svg(theme="dark") != found.to_svg(theme="light")
    assert "9 blocks alike" in found.to_html()
    assert found.to_png(theme="dark")[:4] == b"\x89PNG"
    pypdf = pytest.importorskip("pypdf")
    assert "heads 2 → 1" in pypdf.PdfReader(io.BytesIO(found.to_pdf())).pages[0].extract_text()


def test_a_picture_is_told_in_words_too() -> None:
    svg = PAIRS["edited"][0].diff(PAIRS["edited"][1]).to_svg()
    said = svg.partition("<desc>")[2].partition("</desc>")[0]
    assert said.startswith(
        "9 blocks alike, 2 changed, 1 added, 1 removed. blocks; - f f3; + f(glu) f12; ~ a: heads 2 → 1 a8"
    )


# Random edits -----------------------------------------------------------------------------------------------------

EDITS = st.lists(st.tuples(st.sampled_from(["insert", "remove", "replace"]), st.integers(0, 11)), max_size=4, unique_by=lambda e: e[1])  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(EDITS)
def test_picture_and_text_tell_exactly_what_was_edited(edits: list[tuple[str, int]]) -> None:
    before = graph(" ".join(f"a(heads={i + 1}) f(mult={i + 1})" for i in range(6)))  # no two are alike
    after = before.copy()
    done: Counter[str] = Counter()
    for edit, i in edits:
        node = before.nodes("block")[i]
        if edit == "insert":
            after.insert(node, "e(experts=3)")
            done["added"] += 1
        elif edit == "remove":
            after.remove(node)
            done["removed"] += 1
        else:
            after.replace(node, "a(heads=31)" if node[0] == "a" else "f(mult=31)")
            done["changed"] += 1
    found = before.diff(after)
    picture = read(found.to_svg())
    signs = {box.name: box.words[-1] for box in picture.of("block")}
    told = Counter({"−": "removed", "+": "added", "~": "changed"}.get(sign, "alike") for sign in signs.values())
    in_words = {name: {"changed": 2}.get(name, 1) * count for name, count in done.items()}  # at both sides
    assert {name: told[name] for name in ("added", "removed", "changed") if told[name]} == in_words
    head = picture.head[0].words.split(" · ")
    expected = [f"{done[name]} {name}" for name in ("changed", "added", "removed") if done[name]]
    alike = 12 - done["removed"] - done["changed"]
    assert head == ([f"{alike} blocks alike", *expected] if edits else ["no differences"])
    lines = [line.strip() for line in found.to_text().partition("\nstages")[0].splitlines()]
    text = Counter({"-": "removed", "+": "added", "~": "changed"}[line[0]] for line in lines for _ in range(_times(line)) if line[0] in "+-~" and "stream" not in line)  # fmt: skip
    assert text == done


def _times(line: str) -> int:
    """How many blocks a line of the text is for: `~ 2 × f: ...`."""
    words = line.split()
    return int(words[1].replace(",", "")) if len(words) > 2 and words[2] == "×" else 1
