"""Differences between graphs: whole ones by hand, and for random graphs the edit that was made."""

from __future__ import annotations

import json
from itertools import dropwhile
from textwrap import dedent
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blockdsl
from blockdsl import BlockGraph, GraphDiff, GraphError, UserError, zoo
from blockdsl.graph.align import align
from blockdsl.graph.diff import Change, Changed, StageChange

from ..draw.reading import read
from ..work import LINEAR, growth
from .patterns import Model, models

SIZES = {"dim": 16, "heads": 2, "attn_dim_head": 4}


def graph(pattern: str, **keywords: Any) -> BlockGraph:
    return blockdsl.compile(pattern, **(SIZES | keywords))


def diff(before: str, after: str, **keywords: Any) -> GraphDiff:
    return graph(before, **keywords).diff(graph(after, **keywords))


def parts(found: GraphDiff) -> dict[str, Any]:
    """What it says, but for the costs; parts that say nothing are left out."""
    names = ("removed", "added", "blocks", "stack", "settings", "wiring", "stages")
    return {name: getattr(found, name) for name in names if getattr(found, name)}


# Labels and reads ---------------------------------------------------------------------------------------------------


def told(found: GraphDiff) -> list[str]:
    """The lines between those above, which tell the whole, and the costs."""
    lines = str(found).partition("\ncosts, at")[0].splitlines()
    return [*dropwhile(lambda line: line not in ("blocks", "stages", "settings", "wiring"), lines)]


@pytest.mark.parametrize(
    ("before", "after", "wiring"),
    [
        ("^u a f a", "^u a f <u a", "+ reads u   read0"),
        ("^u a f <u a", "^u a f <u(gain) a", "- reads u          read0\n+ reads u (gain)   read0"),
        ("(a f)*6", "(^u a f)*3 (<u(pop, cat) a f)*3", "+ 3 × reads u (cat)   read0, read1, read2"),
        ("^u a f <u a", "a ^v f <v a", "~ reads u -> v   read0"),
        ("^u a f <u/2", "^u a f <u/4", "~ reads u: scale 0.5 -> 0.25   read0"),
        ("a ^u f a f", "a ^u f a(kv=u) f", "~ a: kv none -> u   a2"),
        ("a ^u f a ^v f a(kv=u)", "a ^u f a ^v f a(kv=v)", "~ a: kv u -> v   a4"),
    ],
)
def test_what_reads_an_earlier_place_is_said_by_its_label(before: str, after: str, wiring: str) -> None:
    lines = told(diff(before, after))
    assert lines[0] == "wiring"
    assert "\n".join(line.strip() for line in lines[1:]) == wiring


def test_names_of_places_and_ways_to_write_a_skip_are_no_difference() -> None:
    assert not diff("^u a f <u a", "^v a f <v(first) a")
    assert not diff("a & f", "f & a")
    skip = graph("a f a")
    skip.nx.add_edge("input", "a2")
    found = skip.diff(graph("^u a f <u a"))
    assert not found
    assert {*found.status()[1].values()} == {"same"}


# Blocks ------------------------------------------------------------------------------------------------------------


def test_a_block_that_is_put_in_shifts_no_others() -> None:
    found = diff("(a f)*6", "(a f)*3 f(glu) (a f)*3")
    assert parts(found) == {"added": ("f6",)}
    assert [pair for pair in found.pairs if pair[0] in ("a4", "f5", "a6", "f11")] == [
        *[("a4", "a4"), ("f5", "f5"), ("a6", "a7"), ("f11", "f12")]
    ]


def test_a_block_that_is_taken_out() -> None:
    assert parts(diff("a f(glu) a", "a a")) == {"removed": ("f1",)}
    assert parts(diff("a f(glu) f f", "a f f")) == {"removed": ("f1",)}


def test_of_blocks_alike_those_in_the_same_branch_or_tied_alike_are_pairs() -> None:
    heads = Changed("a3", "a4", (Change("heads", 2, 1),))
    found = diff("(f & (f(glu) a)) a", "f (f & (f(glu) a)) a(heads=1)")
    assert parts(found) == {"added": ("f0",), "blocks": (heads,)}
    found = diff("a a@x f a@x", "a@x f a@x f(glu)")
    assert parts(found) == {"removed": ("a0",), "added": ("f3",)}


def test_kinds_are_no_pair() -> None:
    assert parts(diff("a f a", "a a a")) == {"removed": ("f1",), "added": ("a1",)}


def test_options_and_suffixes_that_changed() -> None:
    change = Changed("f1", "f1", (Change("mult", 4, 2), Change("glu", False, True)))
    assert parts(diff("a f a", "a f(mult=2, glu) a")) == {"blocks": (change,)}
    change = Changed("a0", "a0", (Change("shift", 2, 0), Change("scale", 0.5, 1.0)))
    assert parts(diff("a>>2/2 f", "a f")) == {"blocks": (change,)}


def test_a_setting_changes_every_block_and_the_new_block_is_found_all_the_same() -> None:
    before, after = graph("(a f)*4"), graph("f (a f)*4", heads=8)
    heads = (Change("heads", 2, 8),)
    assert parts(before.diff(after)) == {
        "added": ("f0",),
        "blocks": tuple(Changed(f"a{i}", f"a{i + 1}", heads) for i in (0, 2, 4, 6)),
    }


def test_what_says_nothing_of_the_model_does_not_count() -> None:
    assert not diff("a f", "a(heads=2) f(mult=4)")
    assert not diff("(a@x f@y)*2", "(a@q f@x)*2")
    assert not diff("a@x f", "a f"), "a tie of one block"
    renamed = graph("a f")
    renamed.nx = nx.relabel_nodes(renamed.nx, {"a0": "first", "f1": "second"})
    assert not graph("a f").diff(renamed)


def test_ties() -> None:
    tied = tuple(Changed(node, node, (Change("tie", None, "x"),)) for node in ("a0", "a2"))
    assert parts(diff("a f a", "a@x f a@x")) == {"blocks": tied}
    other = Changed("a2", "a2", (Change("tie", "x", "y"),))
    assert parts(diff("a@x a@x a@x a@y a@y", "a@x a@x a@y a@y a@y")) == {"blocks": (other,)}
    assert parts(diff("a@x f a@x", "f a")) == {"removed": ("a0",)}, "what it was tied to is gone"


# Which belong together -----------------------------------------------------------------------------------------------


def blocks(g: BlockGraph) -> tuple[str, ...]:
    return tuple(g.nodes("block"))


def test_the_layers_of_a_short_model_are_the_first_of_a_long_one() -> None:
    gpt2, llama = zoo.gpt2.graph(), zoo.llama3.graph()  # 12 layers and 32, of which none is alike
    for before, after in ((gpt2, llama), (graph("(a f)*12"), graph("(a f)*32"))):
        found = before.diff(after)
        own = [pair for pair in found.pairs if before.node_type(pair[0]) == "block"]
        assert own == [*zip(blocks(before), blocks(after)[:24], strict=True)]
        assert [node for node in found.added if node in blocks(after)] == [*blocks(after)[24:]]
    assert gpt2.diff(llama).added == llama.diff(gpt2).removed


@pytest.mark.parametrize("new", ["a f(glu)", "a(heads=1) f", "a f", "a f f(glu)"])
def test_layers_that_are_put_in_are_found_where_they_are_and_whole(new: str) -> None:
    after = graph(f"(a f)*24 {new} (a f)*24")
    size = len(new.split())
    here = blocks(after)[-size:] if new == "a f" else blocks(after)[48 : 48 + size]  # one as all others is the last
    assert parts(graph("(a f)*48").diff(after)) == {"added": here}
    assert parts(after.diff(graph("(a f)*48"))) == {"removed": here}
    changed = graph("(a f)*48", attn_dim_head=8).diff(after)
    assert changed.added == here
    assert len(changed.blocks) == 48


def test_what_stands_at_the_end_of_both_stays_there() -> None:
    found = graph("(a f)*12 c").diff(graph("(a f(glu))*32 c", heads=4))
    assert [pair for pair in found.pairs if pair[0] == "c24"] == [("c24", "c64")]
    assert found.added == tuple(f"{'af'[i % 2]}{i}" for i in range(24, 64))


def test_layers_of_an_encoder_and_a_decoder_are_the_first_of_each() -> None:
    small, large = zoo.t5("small").graph(), zoo.t5("base").graph()  # 6 layers each, and 12
    found = small.diff(large)
    assert found.encoder is not None
    assert found.added == blocks(large)[18:]
    assert found.encoder.added == blocks(large.streams()["encoder"])[12:]


def test_a_model_of_experts_after_some_dense_layers() -> None:
    found = graph("(a f)*8").diff(graph("(a f)*2 (a e)*6"))
    assert (found.removed, found.added) == (
        ("f5", "f7", "f9", "f11", "f13", "f15"),
        ("e5", "e7", "e9", "e11", "e13", "e15"),
    )


# Around them ---------------------------------------------------------------------------------------------------------


def test_settings_of_the_stack_the_input_the_output_and_positions() -> None:
    before = graph("a", num_tokens=11, max_seq_len=9, rotary_pos_emb=True, rotary_emb_dim=2)
    after = graph("a", num_tokens=12, max_seq_len=9, rotary_pos_emb=True, rotary_emb_dim=4, use_rmsnorm=True)
    found = before.diff(after)
    assert parts(found) == {
        "blocks": (Changed("a0", "a0", (Change("use_rmsnorm", False, True),)),),
        "settings": (
            Changed("input", "input", (Change("num_tokens", 11, 12),)),
            Changed("output", "output", (Change("norm", "layernorm", "rmsnorm"), Change("logits_dim", 11, 12))),
            Changed("rotary2", "rotary4", (Change("dim", 2, 4),)),
        ),
    }
    wider = graph("f", dim=8).diff(graph("f", causal=True))
    assert parts(wider) == {"stack": (Change("dim", 8, 16), Change("causal", False, True))}


def test_what_logits_come_to_is_told_where_their_scale_and_bias_are_left_open() -> None:
    tokens = {"num_tokens": 11, "max_seq_len": 9}

    def output(tied: dict[str, Any], own: dict[str, Any]) -> str:
        before, after = graph("a", **tokens, tie_embedding=True, **tied), graph("a", **tokens, **own)
        found = before.diff(after)
        (line,) = [line for line in told(found) if "output" in line]
        assert line.partition(": ")[2].replace("->", "→") in " ".join(read(found.to_svg()).node("after.output").words)
        return line

    assert output({"logits_scale": 1}, {}) == "  ~ output: tied true -> false, logits_bias false -> true"
    assert output({"logits_scale": 1}, {"logits_bias": False}) == "  ~ output: tied true -> false"
    assert output({}, {"logits_bias": False}) == "  ~ output: tied true -> false, logits_scale none -> 1"


def test_positions_of_another_scheme() -> None:
    found = graph("a", rotary_pos_emb=True).diff(graph("a", rel_pos_bias=True))
    assert parts(found) == {
        "removed": ("rotary2",),
        "added": ("t5_bias2",),
        "wiring": (Changed("a0", "a0", (Change("position", ("rotary2",), ("t5_bias2",)),)),),
    }


def test_a_context_comes_with_the_first_block_that_reads_it() -> None:
    assert parts(diff("a f", "a c f")) == {"added": ("context", "c1")}


# Wiring --------------------------------------------------------------------------------------------------------------


def test_blocks_side_by_side_and_consecutive() -> None:
    found = diff("a & f", "a f")
    assert parts(found) == {
        "wiring": (
            Changed("f1", "f1", (Change("stream", ("input",), ("a0",)),)),
            Changed("output", "output", (Change("stream", ("sum0",), ("f1",)),)),
        )
    }
    assert found.status() == (
        {"input": "same", "a0": "same", "f1": "changed", "sum0": "removed", "output": "changed"},
        {"input": "same", "a0": "same", "f1": "changed", "output": "changed"},
    )


@pytest.mark.parametrize("more", ["a & f & c", "a & (f c)", "a & f c", "c (a & f)", "a & (c f)", "a & (f & c)"])
def test_a_new_block_is_all_that_is_new_wherever_it_stands(more: str) -> None:
    found = diff("a & f", more)
    assert [node[0] for node in found.added if node != "context"] == ["c"]
    assert parts(found).keys() == {"added"}
    back = diff(more, "a & f")
    assert parts(back).keys() == {"removed"}


def test_scores_of_another_block() -> None:
    found = diff("a a a", "a a(residual_attn=false) a", residual_attn=True)
    rewired = Changed("a1", "a1", (Change("scores", ("a0",), ()),))
    assert parts(found) == {
        "blocks": (Changed("a1", "a1", (Change("residual_attn", True, False),)),),
        "wiring": (rewired,),
    }
    assert parts(diff("a a(dropout=0.1) a", "a a", residual_attn=True)) == {"removed": ("a1",)}


# Stages --------------------------------------------------------------------------------------------------------------


def test_stages_that_move_come_go_and_are_named() -> None:
    start = StageChange(1, 1, (Change("starts at", "a2", "f1"),))
    assert parts(diff("a f | a f", "a | f a f")) == {"stages": (start,)}
    assert parts(diff("a f a f", "a f | a f")) == {"stages": (StageChange(None, 1),)}
    assert parts(diff("a f | a f", "a f a f")) == {"stages": (StageChange(1, None),)}
    assert parts(diff("a | x: f", "a | y: f")) == {"stages": (StageChange(1, 1, (Change("name", "x", "y"),)),)}
    assert parts(diff("a f | a f", "a f f | a f")) == {"added": ("f2",)}, "the boundary is where it was"
    assert parts(diff("a | a f", "a | f | a f")) == {"added": ("f1",), "stages": (StageChange(None, 1),)}
    renamed = StageChange(2, 3, (Change("name", "x", "y"),))
    found = diff("a | a f | x: f", "a | f | a f | y: f")
    assert parts(found) == {"added": ("f1",), "stages": (StageChange(None, 1), renamed)}


# Costs and texts -----------------------------------------------------------------------------------------------------

# By hand, dim 16, 2 heads of 4 features, 10 tokens:
#   a: a norm 2·16, maps 4·16·8, products 2·(8 + 8)·10 a token       544 parameters   2·10·(512 + 160) = 13,440 FLOPs
#   f: a norm 2·16, maps 2·16·64, biases 64 + 16                   2,160 parameters   2·10·2,048       = 40,960 FLOPs
#   a caches 2·8 numbers of 4 bytes a token, 640 bytes; the last norm has 32 parameters


def test_costs_before_and_after() -> None:
    found = graph("a f").diff(graph("a f f"), seq_len=10)
    assert found.costs == (
        Change("parameters", 544 + 2160 + 32, 544 + 2 * 2160 + 32),
        Change("flops", 13_440 + 40_960, 13_440 + 2 * 40_960),
        Change("kv_cache_bytes", 640, 640),
    )
    assert str(found) == dedent(
        """\
        2 blocks alike · 1 added
        differ: 2.74 k parameters -> 4.9 k parameters
        alike: pre-norm LayerNorm
        blocks
          + f   f2
        costs, at 10 tokens a row
          parameters    2,736 ->  4,896 (+78.9%)
          FLOPs        54,400 -> 95,360 (+75.3%)
          cache bytes     640"""
    )
    with pytest.raises(UserError, match="seq_len must be a whole number of at least 0, not -1"):
        graph("a").diff(graph("f"), seq_len=-1)


def test_costs_of_images_are_for_their_patches() -> None:
    small, large = (graph("a", image_size=size, patch_size=8, num_classes=2) for size in (32, (64, 32)))
    wider = graph("a", image_size=32, patch_size=8, num_classes=3)
    assert "costs, at 16 tokens a row" in str(small.diff(wider)).splitlines()
    assert "costs, at 16 -> 32 tokens a row" in str(small.diff(large)).splitlines()
    assert "costs, at 9 -> 16 tokens a row" in str(graph("a").diff(small, seq_len=9)).splitlines()


def test_notes_do_not_count_and_a_misspelt_attribute_is_an_error() -> None:
    noted = graph("a f", rotary_pos_emb=True)
    for node in noted.nx:
        noted.nx.nodes[node]["_note"] = object()
    found = noted.diff(graph("a f", rotary_pos_emb=True))
    assert not found
    assert "_note" not in noted.diff(graph("f", rotary_pos_emb=False)).to_json()
    noted.nx.nodes["a0"]["shfit"] = 1
    with pytest.raises(GraphError, match="a0: unknown attribute 'shfit'; did you mean 'shift'"):
        noted.diff(noted)


def test_changes_that_many_blocks_have_are_one_line() -> None:
    found = graph("c (a f)*12 | f").diff(graph("(a f(glu) f)*12 | e: f", heads=4))
    expected = """\
        blocks
          - c                      c0
          + 12 × f(glu)            f1, f4, f7, f10, f13, f16, ... and 6 more
          ~ 12 × a: heads 2 -> 4   a1 -> a0, a3, a5 -> a6, a7 -> a9, a9 -> a12, a11 -> a15, ... and 6 more
        stages
          ~ stage 2: name none -> e
        settings
          - context
        """
    assert told(found) == dedent(expected).splitlines()


def test_values_that_follow_from_others_are_told_as_what_they_come_to() -> None:
    found = graph("a f", dim=32).diff(graph("a(kv_heads=1) f(inner=48)", dim=32))
    lines = [" ".join(line.split()) for line in told(found)]
    assert lines[1:3] == ["~ a: kv_heads 2 -> 1 a0", "~ f: inner 128 -> 48 f1"]
    assert [change.before for changed in found.blocks for change in changed.changes] == [None, None], "as it is given"
    wide = graph("f", dim=512).diff(graph("f(inner=10000)", dim=512))
    assert "inner 2,048 → 10,000" in wide.to_svg()


def test_wiring_is_told_by_kinds() -> None:
    assert (
        told(diff("(a & f)*3", "(a f)*3"))
        == dedent(
            """\
        wiring
          ~ f: stream input -> a      f1
          ~ 2 × a: stream sum -> f    a2, a4
          ~ 2 × f: stream sum -> a    f3, f5
          ~ output: stream sum -> f   output"""
        ).splitlines()
    )


def test_a_text_is_no_graph() -> None:
    with pytest.raises(TypeError, match="diff takes a BlockGraph, as compile gives, not str"):
        graph("a f").diff("a f")
    with pytest.raises(TypeError, match="a pattern is a string, not list"):
        blockdsl.compile(["a", "f"], dim=8)  # type: ignore[call-overload]
    with pytest.raises(
        UserError, match=r"zoo:gpt2 is for the command line: here it is blockdsl.zoo.entry\('gpt2'\).graph\(\)"
    ):
        blockdsl.compile("zoo:gpt2")
    assert blockdsl.compile("zoo:a", dim=8).stages == ["zoo"]


def test_colours_say_what_is_new_and_gone_and_leave_the_text_as_it_is() -> None:
    found = diff("a f", "a(heads=1) c")
    colored = found.to_text(color=True)
    for code, sign in (("31", "-"), ("32", "+"), ("33", "~")):
        assert f"\x1b[{code}m  {sign} " in colored
    plain = colored
    for code in ("31", "32", "33", "0"):
        plain = plain.replace(f"\x1b[{code}m", "")
    assert plain == str(found)
    assert str(diff("a", "a")) == "no differences"


def test_json_has_all_of_it() -> None:
    found = graph("a f | a").diff(graph("a f(glu) | x: c", causal=True), seq_len=10)
    plain = json.loads(found.to_json())
    assert plain["equal"] is False
    assert [(row["node"], row["type"]) for row in plain["removed"]] == [("a2", "block")]
    assert [(row["node"], row["type"]) for row in plain["added"]] == [("context", "context"), ("c2", "block")]
    assert plain["added"][1]["options"]["heads"] == 2
    assert plain["blocks"] == [
        {"before": "a0", "after": "a0", "changes": [{"name": "causal", "before": False, "after": True}]},
        {"before": "f1", "after": "f1", "changes": [{"name": "glu", "before": False, "after": True}]},
    ]
    assert plain["stack"] == [{"name": "causal", "before": False, "after": True}]
    assert plain["stages"] == [{"before": 1, "after": 1, "changes": [{"name": "name", "before": None, "after": "x"}]}]
    assert plain["costs"][0]["name"] == "parameters"
    assert plain["seq_len"] == 10
    assert ["f1", "f1"] in plain["pairs"]


# Random graphs -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(models())
def test_a_graph_does_not_differ_from_itself(model: Model) -> None:
    g = blockdsl.compile(model.text, **model.settings)
    found = g.diff(BlockGraph.from_json(g.to_json()))
    assert not found
    assert found.pairs[0] == (g.start, g.start)
    assert {*found.pairs} == {(node, node) for node in g.nx if g.nx.nodes[node]["type"] != "sum"} | {
        pair for pair in found.pairs if pair[0] == pair[1] and g.nx.nodes[pair[0]]["type"] == "sum"
    }
    assert {*found.status()[0].values()} == {"same"}


TURNED = {"removed": "added", "added": "removed"}


@settings(max_examples=60, deadline=None)
@given(models(), models())
def test_the_other_way_round_is_the_same_turned_round(one: Model, other: Model) -> None:
    g, h = (blockdsl.compile(model.text, **model.settings) for model in (one, other))
    there, back = g.diff(h), h.diff(g)
    assert (there.removed, there.added) == (back.added, back.removed)
    assert sorted(there.pairs) == sorted((before, after) for after, before in back.pairs)
    for name in ("blocks", "settings", "wiring"):
        turned = {
            (c.after, c.before, frozenset((x.name, x.after, x.before) for x in c.changes)) for c in getattr(back, name)
        }
        found = {
            (c.before, c.after, frozenset((x.name, x.before, x.after) for x in c.changes)) for c in getattr(there, name)
        }
        assert found == turned
    assert json.loads(there.to_json())["equal"] == (not there)
    # Every node is a pair's or has gone.
    ours, theirs = there.status()
    assert [*ours] == [*g.nx]
    assert [*theirs] == [*h.nx]
    assert len([s for s in ours.values() if s != "removed"]) == len([s for s in theirs.values() if s != "added"])


LAYERS = ["a", "f", "f(glu)", "a(heads=1)", "f/2", "a>>1", "c", "f(mult=2)", "(a & f)", "(f & f(glu) a)"]
SINGLE = [layer for layer in LAYERS if "&" not in layer]


@st.composite
def edits(draw: st.DrawFn) -> tuple[list[str], list[str], str, str | None, str | None]:
    """Layers, the same after an edit, and what it was: what was taken out, and what was put in."""
    layers = draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=30))
    at = draw(st.integers(0, len(layers) - 1))
    what = draw(st.sampled_from(["drop", "insert", "change"]))
    new = draw(st.sampled_from(SINGLE))
    if what == "insert":
        return layers, [*layers[:at], new, *layers[at:]], what, None, new
    layers[at] = draw(st.sampled_from(SINGLE))
    if what == "drop":
        return [*layers, "f(no_bias)"], [*layers[:at], *layers[at + 1 :], "f(no_bias)"], what, layers[at], None
    return layers, [*layers[:at], new, *layers[at + 1 :]], what, layers[at], new


def said(g: BlockGraph, node: str) -> tuple[Any, ...]:
    attrs = g.nx.nodes[node]
    return attrs["kind"], attrs["options"], attrs["shift"], attrs["scale"]


@settings(max_examples=150, deadline=None)
@given(edits())
def test_the_edit_that_was_made_is_what_is_found(
    edit: tuple[list[str], list[str], str, str | None, str | None],
) -> None:
    before, after, what, old, new = edit
    g, h = graph(" ".join(before)), graph(" ".join(after))
    found = g.diff(h)
    removed = [said(g, node) for node in found.removed if node != "context"]
    added = [said(h, node) for node in found.added if node != "context"]
    out = [] if old is None else [said(graph(old), graph(old).nodes("block")[0])]
    put = [] if new is None else [said(graph(new), graph(new).nodes("block")[0])]
    assert parts(found).keys() <= {"removed", "added", "blocks"}
    if what == "change" and out == put:
        assert not found
    elif what == "change" and out[0][0] == put[0][0]:
        (changed,) = found.blocks
        assert (removed, added) == ([], [])
        assert (said(g, changed.before), said(h, changed.after)) == (out[0], put[0])
    else:
        assert not found.blocks
        assert (removed, added) == (out, put)


# Aligning ------------------------------------------------------------------------------------------------------------


def cost(one: str, other: str) -> int | None:
    return 101 if one.lower() == other.lower() else None


def cheapest(a: str, b: str) -> int:
    """What the best matching costs, by trying all."""
    if not a or not b:
        return 100 * len(a + b)
    pair = 0 if a[0] == b[0] else cost(a[0], b[0])
    ways = [cheapest(a[1:], b) + 100, cheapest(a, b[1:]) + 100]
    return min(ways + ([] if pair is None else [cheapest(a[1:], b[1:]) + pair]))


@settings(max_examples=100, deadline=None)
@given(st.text("aAb", max_size=6), st.text("aAb", max_size=6))
def test_the_matching_is_one_of_least_cost(a: str, b: str) -> None:
    pairs = align(a, b, cost)
    assert pairs == sorted(pairs)
    paid = [0 if a[i] == b[j] else cost(a[i], b[j]) for i, j in pairs]
    assert sum(paid) + 100 * (len(a) + len(b) - 2 * len(pairs)) == cheapest(a, b)  # type: ignore[arg-type]
    assert align(b, a, cost) == [(j, i) for i, j in pairs]


def test_long_sequences_are_matched_a_good_way_off_the_diagonal() -> None:
    before, after = graph("(a f)*585 f(mult=2)*30"), graph("c*30 (a f(glu))*585", heads=4)
    found = before.diff(after)
    assert found.removed == tuple(before.nodes("block")[1170:])
    assert [node for node in found.added if node != "context"] == after.nodes("block")[:30]
    assert len(found.blocks) == 1170


def test_blocks_that_all_changed_are_compared_in_steps_that_grow_with_their_number() -> None:
    g, h = graph("(a f)*1000"), graph("f (a f(glu))*500 c (a f(glu))*500", heads=4)
    found = g.diff(h)
    assert [node for node in found.added if node != "context"] == ["f0", "c1001"]
    assert len(found.blocks) == 2000
    graphs = {size: (graph(f"(a f)*{size}"), graph(f"f (a f(glu))*{size}", heads=4)) for size in (300, 600)}
    assert growth(lambda size: graphs[size][0].diff(graphs[size][1]), 300) < LINEAR


def test_options_that_come_to_the_same_are_no_difference() -> None:
    plain = blockdsl.compile("(a f)*2", dim=16, heads=2)
    said = blockdsl.compile("(a f)*2", dim=16, heads=2, ff_inner=64, ff_activation="gelu", attn_kv_heads=2)
    assert not plain.diff(said)
    assert not said.diff(plain)
    (first, _) = plain.diff(blockdsl.compile("(a f)*2", dim=16, heads=2, ff_inner=48)).blocks
    assert [(change.name, change.before, change.after) for change in first.changes] == [("inner", None, 48)]
    wider = blockdsl.compile("(a f)*2", dim=32, heads=2, ff_inner=64)
    assert plain.diff(wider).blocks == ()
    assert [change.name for change in plain.diff(wider).stack] == ["dim"]
