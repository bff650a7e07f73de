"""Pictures by their structure: the language's constructs, the seed document's models, random patterns and graphs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import blockdsl
from blockdsl import BlockGraph
from blockdsl.draw import side_by_side
from blockdsl.draw.color.hues import place
from blockdsl.graph.nodes import carried

from ..built_in import BUILT_IN
from ..graph.patterns import Model, models
from ..language.strategies import Program, plain, programs
from ..work import LINEAR, growth
from .reading import Picture, check, read

SIZES = {"dim": 16, "heads": 2, "attn_dim_head": 4}
TOKENS = {"num_tokens": 300, "max_seq_len": 32}


def graph(pattern: str, **keywords: Any) -> BlockGraph:
    return blockdsl.compile(pattern, **(SIZES | keywords))


def drawn(pattern: str, unfold: bool = False, detail: str = "block", color: str = "kind", **keywords: Any) -> Picture:
    g = graph(pattern, **keywords)
    return check(g.to_svg(unfold=unfold, detail=detail, color=color), g, unfolded=unfold)


CONSTRUCTS: list[tuple[str, dict[str, Any]]] = [
    ("a", {}),
    ("(a f)*6", {"causal": True}),
    ("f a f | a*6 f*6 | sandwich(6)", {}),
    ("f | deep: (a f*2 & f)*3", {}),
    ("a very_long_name_of_a_stage_that_is_wider_than_its_blocks: a f".removeprefix("a "), {}),
    ("encoder: (a f)*2 | (a c f)*2 | head: f", {}),
    ("f (a f f) & a (f & a) f & f(glu)", {}),
    ("((a & f) f) & (a & f)*2", {}),
    ("((a f) & f)*4 ((a & f) f)*2", {}),
    ("(a@x f@y)*12", {}),
    ("(a f)@g*2 a@x f a@x>>1/2", {}),
    ("a a(dim_head=8) c f", {"rotary_pos_emb": True}),
    ("(a f)*4 | a & (f a) a", {"residual_attn": True}),
    ("(a f)*4 | (a & c) & (f a) a", {"residual_attn": True, "rel_pos_bias": True}),
    ("c (c & c)*50", {"cross_residual_attn": True}),
    ("(a c f)*4", {"residual_attn": True, "cross_residual_attn": True, "alibi_pos_bias": True}),
    ("(a f)*3", TOKENS | {"tie_embedding": True, "use_rmsnorm": True}),
    ("(a f)*3", TOKENS | {"scaled_sinu_pos_emb": True, "dynamic_pos_bias": True, "emb_dim": 8}),
    ("(a f)*3", TOKENS | {"num_memory_tokens": 4, "l2norm_embed": True, "post_emb_norm": True, "logits_dim": 3}),
    ("((a f)*3 (f/2 a)*2 f(glu))*4 f", {}),
    ("(a(heads=4, dim_head=8, causal)>>1 f(glu, swish)/2 (a & f*2))*12", {}),
    ("macaron(6) par(6, 4)", {"shift_tokens": 1}),
    ("(a f)*3", {"pre_norm": False}),
    ("(a & f) f a", {"pre_norm": False, "use_scalenorm": True}),
    ("(a f)*3", {"deepnorm": True}),
    (
        "a(heads=4, dim_head=8, num_mem_kv=3, qk_norm, talking_heads, head_scale, gate_values)/3@tie_with_a_long_name",
        {},
    ),
]


@pytest.mark.parametrize(("pattern", "keywords"), CONSTRUCTS)
@pytest.mark.parametrize("detail", ["block", "op"])
@pytest.mark.parametrize("unfold", [False, True])
def test_every_construct_is_drawn(pattern: str, keywords: dict[str, Any], detail: str, unfold: bool) -> None:
    drawn(pattern, unfold, detail, **keywords)


@given(models(), st.booleans(), st.sampled_from(["block", "op"]))
@settings(deadline=None, max_examples=20)
def test_random_models_are_drawn(model: Model, unfold: bool, detail: str) -> None:
    g = blockdsl.compile(model.text, **model.settings)
    check(g.to_svg(unfold=unfold, detail=detail), g, unfolded=unfold)


@given(programs(), st.booleans())
@settings(deadline=None, max_examples=20)
def test_random_programs_are_drawn(program: Program, unfold: bool) -> None:
    try:
        g = blockdsl.compile(
            plain(program), **({} if "dim" in blockdsl.parse(plain(program)).settings else {"dim": 64})
        )
    except ValueError:  # the strategy knows the language and not what blocks can be
        assume(False)
    assume(len(g.nodes("block")) < 120)
    check(g.to_svg(unfold=unfold), g, unfolded=unfold)


@given(models(), st.integers(1, 5), st.sampled_from(["block", "op"]))
@settings(deadline=None, max_examples=20)
def test_random_models_are_drawn_in_columns(model: Model, columns: int, detail: str) -> None:
    g = blockdsl.compile(model.text, **model.settings)
    check(g.to_svg(unfold=True, detail=detail, columns=columns), g, unfolded=True)


@given(models(), st.data())
@settings(deadline=None, max_examples=15)
def test_random_edits_are_drawn_in_layers(model: Model, data: st.DataObject) -> None:
    g = blockdsl.compile(model.text, **model.settings)
    assume(len(g.nx) < 80)
    order = [node for node in g.order() if g.nx.nodes[node]["type"] in ("input", "block", "sum", "output")]
    for _ in range(data.draw(st.integers(1, 4))):
        low = data.draw(st.integers(0, len(order) - 2))
        high = data.draw(st.integers(low + 1, len(order) - 1))
        if g.nx.nodes[order[high]]["type"] != "input":
            g.nx.add_edge(order[low], order[high])
    check(g.to_svg(), g)


LONG = {
    "blocks": (" ".join(f"a(heads={i}) f(mult={i})" for i in range(1, 51)), {}),
    "stages": (
        " | ".join(" ".join(f"a(heads={i + j}) f" for i in range(1, 9)) for j in range(4)),
        {"rotary_pos_emb": True},
    ),
    "skips": (
        f"{' '.join(f'^u{i} a(heads={i + 1}) f' for i in range(12))} {' '.join(f'<u{11 - i}(cat) a f' for i in range(12))}",
        {},
    ),
    "scores": ("(a f)*40", {"residual_attn": True, "alibi_pos_bias": True}),
    "one label": ("(^u a f)*20 (<u(pop) a f)*20", {}),
    "branches": ("(a & f)*20 ((a f) & f)*20", {"rel_pos_bias": True}),
    "shared": ("(a ^k f a(kv=k) f)*15", {}),
    "context": ("^e (a f)*15 (a c(context=e) f)*15 c*3", {}),
}


@pytest.mark.parametrize("case", LONG)
@pytest.mark.parametrize("detail", ["block", "op"])
def test_a_long_stack_wraps_into_columns(case: str, detail: str) -> None:
    pattern, keywords = LONG[case]
    picture = drawn(pattern, unfold=True, detail=detail, **keywords)
    assert 0.5 < picture.width / picture.height < 2
    strip = read(graph(pattern, **keywords).to_svg(unfold=True, detail=detail, columns=1))
    assert strip.height > 2 * picture.height
    assert [node.name for node in strip.of("block")] == [node.name for node in picture.of("block")]


def test_the_stream_goes_from_the_foot_of_a_column_to_the_head_of_the_next() -> None:
    g = graph("f(mult=2) f(mult=3) f(mult=4) f(mult=5)")
    picture = check(g.to_svg(columns=2), g)
    rects = [picture.node(f"f{i}").rect for i in range(4)]
    assert rects[0].left == rects[1].left < rects[2].left == rects[3].left
    assert rects[2].top < rects[1].top
    (way,) = [line for line in picture.lines if line.role == "rail" and (line.source, line.target) == ("f1", "f2")]
    highest, lowest = min(y for _, y in way.points), max(y for _, y in way.points)
    assert highest <= picture.node("input").rect.top
    assert lowest > rects[1].bottom
    assert rects[0].right < sorted(x for x, _ in way.points)[-len(way.points) // 2] < rects[2].left
    with pytest.raises(blockdsl.UserError, match="columns must be a whole number of at least 1, not 0"):
        g.to_svg(columns=0)


def test_blocks_of_columns_are_numbered_as_nodes_are() -> None:
    own = " ".join(f"f(mult={i})" for i in range(1, 22))
    g = graph(f"{own} (a f)*3 {own.replace('f', 'e')} f")
    picture = check(g.to_svg(columns=2), g)
    place = {text.words: text.area for text in picture.numbers}
    left = [node.name for node in picture.of("block") if node.rect.left == picture.node("f0").rect.left]
    right = [node.name for node in picture.of("block") if node.name not in left]
    assert left[-1] == "f22", "it stands for several"
    assert [*place] == ["0", "10", "20", right[0][1:], "30", "40", "48"]
    for number, area in place.items():
        rect = next(node.rect for node in picture.of("block") if node.name[1:] == number)
        assert rect.right < area.left < area.right < rect.right + 24, "where the lines to the rail are"
        assert rect.top < area.top < area.bottom < rect.bottom
    (frame,) = picture.frames
    assert [text.words for text in frame.labels] == ["×3", "21–26"]
    plain = graph("(a f)*3 f")
    assert read(plain.to_svg(columns=1)).numbers == []
    assert len(read(plain.to_svg(columns=1)).frames[0].labels) == 1
    strip = read(g.to_svg(columns=1))
    assert width(strip, "e40") == width(picture, "e40"), "no wider"


def width(picture: Picture, node: str) -> float:
    rect = picture.node(node).rect
    assert rect
    return rect.right - rect.left


def test_a_line_between_columns_is_cut_and_named() -> None:
    g = graph("^u a f(mult=2) f(mult=3) <u f(mult=4) <u(gain) f")
    picture = check(g.to_svg(columns=2), g)
    assert [label.words for label in picture.labels] == ["^u", "^u"], "the label's dot has the name already"
    cut = [line for line in picture.lines if line.cut]
    assert [(line.role, line.source) for line in cut] == [("read", "input")] * 2
    scores = graph("(a f)*4", residual_attn=True)
    picture = check(scores.to_svg(unfold=True, columns=2), scores, unfolded=True)
    assert [label.words for label in picture.labels] == ["A", "A"]


# What is on the boxes ---------------------------------------------------------------------------------------------


def words(picture: Picture, node: str) -> list[str]:
    return picture.node(node).words


def test_a_repeat_is_drawn_once_with_its_count() -> None:
    picture = drawn("(a f)*6")
    assert [node.name for node in picture.of("block")] == ["a0", "f1"]
    assert picture.node("a0").nodes == ("a0", "a2", "a4", "a6", "a8", "a10")
    (frame,) = picture.frames
    assert (frame.role, frame.value, frame.label.words) == ("repeat", 6, "×6")
    unfolded = drawn("(a f)*6", unfold=True)
    assert len(unfolded.of("block")) == 12
    assert unfolded.frames == []


def test_repeats_nest() -> None:
    picture = drawn("((a f)*3 f/2)*4 f")
    outer, inner = picture.frames
    assert (outer.value, inner.value) == (4, 3)
    assert outer.area.holds(inner.area)
    assert [picture.times(node) for node in picture.of("block")] == [12, 12, 4, 1]


def test_stages_are_clusters_of_one_width_with_their_names() -> None:
    picture = drawn("f | deep: (a & f) f | a")
    stages = [frame for frame in picture.frames if frame.role == "stage"]
    assert [stage.label.words for stage in stages] == ["stage 1", "stage 2: deep", "stage 3"]
    assert [stage.value for stage in stages] == [0, 1, 2]
    assert len({(stage.area.left, stage.area.right) for stage in stages}) == 1
    inside = [[n.name for n in picture.of("block") if stage.area.holds(n.rect)] for stage in stages]
    assert inside == [["f0"], ["a1", "f2", "f3"], ["a4"]]


def test_branches_stand_side_by_side_and_meet_in_a_sum() -> None:
    picture = drawn("a & f & f(glu)", unfold=True)
    rects = [picture.node(name).rect for name in ("a0", "f1", "f2")]
    left, right, below = rects
    assert left.top == right.top < left.bottom < below.top, "two in a row"
    assert left.left == below.left < left.right < right.left
    assert picture.edges("branch") == {(a, b) for n in ("a0", "f1", "f2") for a, b in (("input", n), (n, "sum0"))}
    assert picture.edges("rail") == {("input", "sum0"), ("sum0", "output")}


def test_a_branch_of_several_blocks_ends_in_what_it_added() -> None:
    picture = drawn("(a f) & f")
    (gain,) = picture.of("gain")
    assert gain.nodes == ("sum0",)
    assert picture.edges("rail", "branch") == {
        ("input", "a0"),
        ("a0", "f1"),
        ("f1", "sum0"),
        ("input", "f2"),
        ("f2", "sum0"),
        ("input", "sum0"),
        ("sum0", "output"),
    }


def test_a_block_says_its_options_shift_scale_and_tie() -> None:
    picture = drawn("a(heads=4, qk_norm)>>2/2@x f/1.5")
    assert words(picture, "a0") == ["a", "Self-attention", "4 heads × 4,", "qk_norm", "@x", "shift 2", "×½"]
    assert words(picture, "f1") == ["f", "Feedforward", "GELU 64", "×0.667"]


def test_an_edited_option_is_written_and_not_folded_away() -> None:
    g = graph("(a f)*6")
    g.nx.nodes["f3"]["options"]["glu"] = True
    picture = check(g.to_svg(), g)
    assert words(picture, "f3") == ["f", "Feedforward", "GEGLU 64"]
    assert words(picture, "f1") == ["f", "Feedforward", "GELU 64"]


def test_many_options_take_several_lines() -> None:
    picture = drawn("a(heads=4, dim_head=8, num_mem_kv=3, qk_norm, talking_heads, head_scale, gate_values)")
    lines = words(picture, "a0")[2:]
    assert len(lines) > 1
    assert " ".join(lines) == "4 heads × 8, num_mem_kv=3, qk_norm, talking_heads, head_scale, gate_values"


def test_a_tooltip_has_options_shapes_parameters_and_flops() -> None:
    g = graph("(a f(mult=2))*3")
    tip = check(g.to_svg(seq_len=10), g).node("f1").tip
    # 2·(16·32) weights, 32 + 16 biases and 2·16 of the norm; two operations a weight and token
    assert "f1, f3, f5: f(mult=2) · feedforward" in tip
    assert "to_hidden.weight: 32 × 16" in tip
    assert "1,104 parameters each" in tip
    assert "20,480 FLOPs each at 10 tokens" in tip
    assert "options: mult=2" in tip


def test_positions_and_the_context_come_from_the_side() -> None:
    picture = drawn("a c f", rel_pos_bias=True)
    assert words(picture, "t5_bias2") == ["T5 bias"]
    assert words(picture, "context") == ["context"]
    assert picture.edges("position") == {("t5_bias2", "a0")}
    assert picture.edges("context") == {("context", "c1")}
    for line in picture.lines:
        if line.role in ("position", "context"):
            rect = picture.node(line.target).rect
            assert rect
            assert line.points[-1][0] == pytest.approx(rect.left)


@pytest.mark.parametrize(
    ("setting", "name", "said"),
    [
        ("scaled_sinu_pos_emb", "sinusoidal", "sinusoidal positions"),
        ("tie_embedding", "absolute", "learned positions"),
    ],
)
def test_positions_of_the_input_meet_the_stream(setting: str, name: str, said: str) -> None:
    picture = drawn("a", **TOKENS, **{setting: True})
    assert words(picture, name) == [said]
    assert picture.edges("position") == {(name, "input")}
    assert picture.node("input").circle is not None


def test_the_ends_say_what_is_around_the_stack() -> None:
    picture = drawn("a", **TOKENS, tie_embedding=True, num_memory_tokens=2)
    assert " ".join(words(picture, "input")) == ("Token embedding 300 tokens · length 32 dim 16 2 memory tokens")
    assert " ".join(words(picture, "output")) == "Output LayerNorm · 300 logits tied to the embedding logits × 1/√dim"
    assert words(drawn("f", pre_norm=False), "output") == ["Output"]


def test_scores_of_a_copy_before_are_a_loop() -> None:
    picture = drawn("(a f)*4", residual_attn=True)
    scores = {(line.source, line.target) for line in picture.lines if line.role == "scores"}
    assert scores == {("a0", "a2"), ("a2", "a2")}


def test_a_post_norm_stands_on_the_rail() -> None:
    picture = drawn("a f", pre_norm=False, use_rmsnorm=True)
    for name in ("a0", "f1"):
        node = picture.node(name)
        assert node.words[-1] == "RMSNorm"
        (pill,) = [mark for mark in node.marks if not node.rect.holds(mark)]
        assert pill.top > node.circle.bottom


def test_operations_of_a_block() -> None:
    picture = drawn("a(qk_norm)>>1/2 c f(glu, swish)", detail="op", causal=True, rotary_pos_emb=True)
    assert words(picture, "a0")[2:] == [
        "LayerNorm",
        "token shift by 1",
        "q, k, v 16 → 24",
        "unit q, k",
        "rotate q, k",
        "q·k, 2 heads × 4, times 10",
        "softmax · causal",
        "· v, 2 heads × 4",
        "out 8 → 16",
        "× 0.5",
    ]
    assert words(picture, "c1")[2:5] == ["LayerNorm", "q 16 → 8", "k, v 16 → 16"]
    grouped = drawn("a(heads=8, one_kv_head, tensor_product) m", detail="op", causal=True)
    assert "q·k, 8 heads × 4, 1 kv head" in words(grouped, "a0")
    assert "+ itself × a linear layer of the input" in words(grouped, "a0")
    assert {"convolution over 4 tokens + bias, SiLU", "SiLU gate"} < {*words(grouped, "m1")}
    layers = ["linear 16 → 128 + bias", "SiLU gate", "linear 64 → 16 + bias"]
    assert words(picture, "f2")[2:] == ["LayerNorm", *layers]
    # each wire meets the operation that reads it
    (context,) = [line for line in picture.lines if line.role == "context"]
    c1 = picture.node("c1")
    row = next(mark for mark in c1.marks if mark.holds(next(t.area for t in c1.texts if t.words.startswith("k, v"))))
    assert row.top < context.points[-1][1] < row.bottom


# Colours ----------------------------------------------------------------------------------------------------------


def hues(picture: Picture) -> dict[str, str]:
    return {
        node.name: next(c for c in node.classes if c[:4] in ("hue-", "heat", "grey")) for node in picture.of("block")
    }


def test_colours_by_kind() -> None:
    picture = drawn("a c f a")
    assert hues(picture) == {"a0": "hue-0", "c1": "hue-1", "f2": "hue-2", "a3": "hue-0"}
    assert [node.name for node in picture.of("kind-a")] == ["a0", "a3"]
    assert picture.keys == []


def test_colours_by_cost() -> None:
    picture = drawn("a f(mult=1) f(mult=8)", color="params")
    assert hues(picture) == {"a0": "heat-0", "f1": "heat-0", "f2": "heat-4"}
    # 4·16·8 + 32; 2·16·16 + 2·16 + 32; 2·16·128 + 128 + 16 + 32
    assert [node.words[2] for node in picture.of("block")] == ["544", "576", "4.27 k"]
    assert [key.words for key in picture.keys] == ["least 544", "most 4.27 k"]
    picture = drawn("a " + " ".join(f"f(mult={i})" for i in range(1, 10)), color="params")
    assert hues(picture)["f1"] == "heat-0"
    assert hues(picture)["f9"] == "heat-4"
    assert len(picture.keys) == 2


def test_colours_by_stage_and_tie() -> None:
    picture = drawn("a | x: f", color="stage")
    assert hues(picture) == {"a0": "hue-0", "f1": "hue-1"}
    assert [key.words for key in picture.keys] == ["stage 1", "stage 2: x"]
    picture = drawn("a@x f a@x f@alone", color="tied")
    assert hues(picture) == {"a0": "hue-0", "f1": "grey-0", "a2": "hue-0", "f3": "grey-0"}
    assert [key.words for key in picture.keys] == ["@x, 2 blocks", "parameters of its own"]


@pytest.mark.parametrize("color", ["params", "flops", "stage", "tied"])
def test_every_colour_goes_with_every_construct(color: str) -> None:
    for pattern, keywords in CONSTRUCTS:
        picture = drawn(pattern, color=color, **keywords)
        assert picture.keys


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"color": "colour"}, "color must be 'kind', 'params', 'flops', 'stage' or 'tied', not 'colour'"),
        ({"detail": "ops"}, "detail must be 'block' or 'op', not 'ops'; did you mean 'op'?"),
        ({"seq_len": -1}, "seq_len must be a whole number of at least 0, not -1"),
    ],
)
def test_what_there_is_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(blockdsl.UserError) as raised:
        graph("a").to_svg(**options)
    assert str(raised.value) == message


# Other shapes -----------------------------------------------------------------------------------------------------


def test_a_graph_without_a_stream_is_drawn_in_layers() -> None:
    g = graph("a f | (a & f f) f c", residual_attn=True, rotary_pos_emb=True)
    g.nx.remove_edges_from([edge for edge in g.nx.edges if "stream" in carried(g.nx.edges[edge])])
    picture = check(g.to_svg(), g, unfolded=True)
    tops = {name: picture.node(name).areas[0].top for name in g.nx}
    for source, target in g.nx.edges:
        assert tops[source] < tops[target], (source, target)


def test_a_cycle_is_an_error() -> None:
    g = graph("a f")
    g.nx.add_edge("f1", "a0")
    with pytest.raises(blockdsl.UserError, match="cycle: a0 → f1 → a0"):
        g.to_svg()


def test_an_encoder_beside_a_decoder_feeds_it() -> None:
    encoder = graph("(a f)*2", **TOKENS, return_only_embed=True)
    decoder = graph("(a c f)*2 c", causal=True, **TOKENS, dynamic_pos_bias=True)
    svg = side_by_side({"encoder": encoder, "decoder": decoder})
    picture = check(svg, encoder, decoder, names=("encoder", "decoder"))
    assert picture.edges("context") == {("encoder.output", "decoder.c1"), ("encoder.output", "decoder.c6")}
    assert [label.words for label in picture.labels] == ["encoder", "decoder"]
    left, right = picture.node("encoder.a0").rect, picture.node("decoder.a0").rect
    assert left.right < right.left
    assert left.top == right.top


def test_a_decoder_in_layers_is_fed_too() -> None:
    encoder, decoder = graph("(a f)*2"), graph("a c f & f")
    decoder.nx.remove_edges_from([edge for edge in decoder.nx.edges if "stream" in carried(decoder.nx.edges[edge])])
    picture = check(side_by_side({"x": encoder, "y": decoder}), encoder, decoder, names=("x", "y"))
    assert picture.edges("context") == {("x.output", "y.context"), ("y.context", "y.c1")}


def test_a_pattern_and_a_graph_are_shown_by_notebooks() -> None:
    assert blockdsl.parse("(a f)*2")._repr_svg_() == graph("(a f)*2", dim=512, heads=8, attn_dim_head=64).to_svg()
    own = blockdsl.parse("set dim=24, heads=3; a")._repr_svg_()
    assert own is not None
    assert read(own).node("input").words == ["Input", "dim 24"]
    assert read(own).node("a0").words == ["a", "Self-attention", "3 heads × 64"]
    assert blockdsl.parse("set heads=3, attn_dim_head=none; a")._repr_svg_() is None  # 3 heads do not divide 512
    g = graph("a f")
    assert g._repr_svg_() == g.to_svg()


def test_a_file_is_written(tmp_path: Path) -> None:
    svg = graph("a f").to_svg(tmp_path / "x.svg")
    assert (tmp_path / "x.svg").read_text(encoding="utf-8") == svg + "\n"


def test_a_hybrid_of_52_layers_is_drawn_once_a_repeat_everywhere() -> None:
    """Nemotron-H (arXiv:2504.03624): m (f m)*3 (a (f m)*5)*4 f."""
    letters = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"
    g = blockdsl.compile(blockdsl.from_megatron(letters), **SIZES)
    assert len(g.nodes("block")) == 52
    picture = check(g.to_svg(), g)
    kinds = ["m", "f", "m", "a", "f", "m", "f"]
    assert [node.words[0] for node in picture.of("block")] == kinds
    assert sorted(frame.value for frame in picture.frames) == [3, 4, 5]
    titles = tuple(blockdsl.kinds()[kind].title for kind in "amf")
    rows = (re.match(rf"[│ ]+(\w+) +({'|'.join(titles)}) · ", line) for line in g.to_text().splitlines())
    assert [row[1] for row in rows if row] == kinds
    assert len(re.findall(r"n\d+\[", g.to_mermaid())) == g.to_dot(fold=True).count("shape=box") == len(kinds)


SUMMARIES = {
    "a": "2 heads × 4",
    "c": "2 heads × 4",
    "f": "GELU 64",
    "e": "top 2 of 8 × GELU 64",
    "m": "1 head × 32, state 128",
    "mamba": "32 features, state 16",
    "gdn": "8 heads × 64 × 64",
    "kda": "8 heads × 64",
    "gla": "8 heads × 64 × 64",
    "hgrn": "8 heads × 64 × 64",
    "rglru": "16 features",
    "conv": "16 features, over 3 tokens",
}


def test_a_block_says_what_its_kind_is_known_by() -> None:
    for kind in BUILT_IN:
        written = " ".join(drawn(kind, causal=True).of("block")[0].words[1:]).replace("- ", "-")
        assert written.lower() == f"{blockdsl.kinds()[kind].title} {SUMMARIES[kind]}".lower(), kind
    assert drawn("a", heads=8, attn_kv_heads=2).node("a0").words[2:] == ["8 heads × 4,", "2 kv heads"]
    assert drawn("a(max_attend_past=3)").node("a0").words[2:] == ["2 heads × 4, 3 back"]
    windowed = drawn("a(max_attend_past=3)", causal=True)
    assert windowed.node("a0").words[2:] == ["2 heads × 4,", "window 4"], "its own token among them"
    assert drawn("a", attn_kv_rank=8).node("a0").words[2:] == ["2 heads × 4,", "latents of 8"]
    assert drawn("f(glu, swish, inner=7)").node("f0").words[2:] == ["SwiGLU 7"]
    assert drawn("conv(bidirectional)").node("conv0").words[2:] == ["16 features,", "over 3 tokens,", "both ways"]
    assert "e(experts=4, top=2)" in graph("a e", moe_experts=4).to_text()


def test_what_the_whole_stack_has_stands_above_it() -> None:
    """Its size, whether it is causal, its norm, and settings that no block says."""
    gpt2 = drawn("(a f)*2", causal=True, attn_qkv_bias=True, ff_activation="gelu_tanh")
    llama = drawn(
        "(a f)*2", causal=True, attn_kv_heads=1, use_rmsnorm=True, ff_glu=True, ff_swish=True, ff_no_bias=True
    )
    head = [" ".join(line.words for line in picture.head) for picture in (gpt2, llama)]
    assert head == [
        "5.49 k parameters · causal pre-norm LayerNorm biases of q, k, v",
        "6.99 k parameters · causal pre-norm RMSNorm no biases in feedforward",
    ]
    said = {"pre_norm=false": "post-norm LayerNorm", "norm=false": "no norm", "shared_norm=false": "pre-norm LayerNorm"}
    said |= {"output_norm": "LayerNorm after each branch", "sandwich_norm": "LayerNorm before and after each branch"}
    for setting, words_ in (said | {"pre_and_post_norm": "pre- and post-norm LayerNorm"}).items():
        assert words_ in " ".join(line.words for line in drawn(f"set {setting}; a f").head).replace(" · ", " "), setting


def test_a_kind_of_ones_own_has_a_colour_and_its_title() -> None:
    kind = blockdsl.Kind(
        name="convolution_of_a_long_name",
        title="wide <conv> & more",
        options=(blockdsl.Option("kernel", int, 7, "width"), blockdsl.Option("groups", int, 1, "how many")),
        shown=("kernel",),
        shapes=lambda o: {"weight": (o.dim, 1, o.kernel)},
        flops=lambda o, sizes: 2 * sizes.seq * o.dim * o.kernel,
        module="nowhere:Nothing",
    )
    blockdsl.register(kind)
    try:
        picture = drawn("(a convolution_of_a_long_name(kernel=3))*2")
        node = picture.node("convolution_of_a_long_name1")
        assert node.words[1:] == ["Wide <conv> &", "more", "kernel=3"]
        assert f"hue-{place(kind.name)}" in node.classes
        assert "weight: 16 × 1 × 3" in node.tip
        assert drawn("convolution_of_a_long_name*2").node("convolution_of_a_long_name0").words[-1] == "kernel=7"
        opened = drawn("convolution_of_a_long_name", detail="op").node("convolution_of_a_long_name0")
        assert opened.words[3:] == ["kernel=7", "LayerNorm", "wide <conv> & more"]
    finally:
        blockdsl.unregister(kind.name)


def test_no_graph_is_an_error() -> None:
    with pytest.raises(blockdsl.UserError, match="there is no graph to draw"):
        side_by_side({})


# Names and speed --------------------------------------------------------------------------------------------------


def test_what_a_user_names_is_escaped() -> None:
    g = graph("first: a f | second: a f")
    g.nx.graph["stages"] = ["<script>('&\"')", "b"]
    import networkx as nx

    g.nx = nx.relabel_nodes(g.nx, {"a0": '<a&">'})
    picture = check(g.to_svg(), g)
    assert [text.words for text in picture.frames[0].labels] == ["stage 1:", "<script>('&\"')"]
    assert picture.node('<a&">').words[1] == "Self-attention"
    assert "<script>" not in g.to_svg()


def test_a_thousand_blocks_are_drawn_in_steps_that_grow_with_their_number_and_stay_small() -> None:
    text = "(a f)*{0} | ((a & (f f)) f)*{0} (a@x f)*{0}"
    graphs = {size: graph(text.format(size)) for size in (40, 80)}
    for unfold in (False, True):
        assert growth(lambda size, unfold=unfold: graphs[size].to_svg(unfold=unfold), 40) < LINEAR
    svg = graph("(a f)*250 | ((a & (f f)) f)*100 (a@x f)*50").to_svg()
    assert len(svg) < 40_000
    assert read(svg).height < 1000


DRAWINGS = ["to_svg", "to_dot", "to_mermaid", "to_html", "to_text"]


@pytest.mark.parametrize("method", DRAWINGS)
def test_a_graph_that_cannot_be_read_is_refused_in_words(method: str) -> None:
    foreign, cyclic = (blockdsl.compile("(a f)*2", dim=16) for _ in range(2))
    foreign.nx.add_node("zz")
    cyclic.nx.add_edge("f3", "a0")
    with pytest.raises(blockdsl.GraphError, match="zz: unknown node type None"):
        getattr(foreign, method)()
    with pytest.raises(blockdsl.GraphError, match="cycle: a0 → f1 → a2 → f3 → a0"):
        getattr(cyclic, method)()
    with pytest.raises(blockdsl.GraphError, match="zz: unknown node type"):
        blockdsl.compile("a f", dim=16).diff(foreign)


def test_positions_say_of_which_sort_they_are() -> None:
    def written(**settings: Any) -> str:
        return blockdsl.compile("a f", dim=64, heads=4, causal=True, **settings).to_svg()

    assert ">rotary 32<" in written(rotary_pos_emb=True)
    assert ">rotary 32, xPos<" in written(rotary_xpos=True)
    assert re.search(
        ">ALiBi on 4 heads,</text>\n?<text [^>]*>learned<", written(alibi_pos_bias=True, alibi_learned=True)
    )


def test_a_gated_residual_has_a_sign_of_its_own_and_is_told_in_text() -> None:
    graph = blockdsl.compile("a f(gate_residual=false)", dim=16, gate_residual=True)
    signs = [path.get("d", "") for path in ElementTree.fromstring(graph.to_svg()).iter() if path.get("class") == "sign"]
    gate, plus, _ = signs  # and that of the legend
    assert gate.count("v") == 2, "two triangles"
    assert plus.count("h") == 1
    assert "self-attention · 8 heads × 64 · a GRU cell in place of the add" in graph.to_text()
    assert graph.to_text().count("a GRU") == 1


def test_what_blocks_read_stands_above_the_input_and_takes_a_lane_of_width() -> None:
    settings = {"dim": 512, "causal": True}
    plain = read(blockdsl.compile("(a c f)*2", context=True, **settings).to_svg())
    rotary = read(blockdsl.compile("(a c f)*2", context=True, rotary_pos_emb=True, **settings).to_svg())
    assert rotary.width - plain.width <= 10
    (top,), (position,) = rotary.of("input"), rotary.of("position")
    assert position.rect
    assert top.rect
    assert position.rect.bottom < top.rect.top
    assert position.rect.left == top.rect.left
