"""The language service, one question at a time. `|` in a text is where the cursor is, except where a test says so."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import blockdsl
from blockdsl import editor
from blockdsl.editor.respond import respond
from blockdsl.errors import UserError
from blockdsl.registry.kinds import kind_of


def at(text: str) -> tuple[str, int]:
    return text.replace("§", ""), text.index("§")


def labels(text: str) -> list[str]:
    return [each.label for each in editor.completions(*at(text))]


def said(text: str) -> list[tuple[str, str]]:
    """What is underlined, and the first line of what is said of it."""
    return [(text[d.start : d.end], d.message.splitlines()[0]) for d in editor.diagnostics(text)]


def fixed(text: str) -> str:
    """The text with the fix of its first diagnostic."""
    fix = editor.diagnostics(text)[0].fix
    assert fix is not None
    return editor.applied(text, [fix])


def test_nothing_is_said_of_a_pattern_that_is_right() -> None:
    assert editor.diagnostics("set dim=64; stem: f a f | (a f)*6") == []


def test_every_name_and_option_at_fault_is_underlined() -> None:
    text = "set dmi=8, heads=x; a(hedas=8, dropuot=0.1) f(glu) mlp"
    assert [marked for marked, _ in said(text)] == ["dmi=8", "heads=x", "hedas=8", "dropuot=0.1", "mlp"]


@pytest.mark.parametrize(
    "text", ["f a f | attn*6", "(a f", "a +", "sandwich(7, 6)", "set dim=8; f>>9", "", "a f  # x\n  |", "c => a f"]
)
def test_a_diagnostic_has_the_words_of_check(text: str) -> None:
    with pytest.raises(blockdsl.PatternError) as caught:
        blockdsl.compile(text, **({} if "dim" in text else {"dim": 512}))
    (found,) = editor.diagnostics(text)
    assert found.message == f"{caught.value.problem}\n{caught.value.hint}".rstrip("\n")
    assert found.severity == "error"
    assert 0 <= found.start <= found.end <= len(text)


def test_notes_are_those_of_check() -> None:
    assert said("x = a f; a ^u c") == [
        ("x", "'x' is defined and not used"),
        ("^u", "^u names a place that nothing reads"),
        ("c", "c attends to a context: give it when calling, or write (a f)*6 => (a c f)*6"),
    ]


def test_an_error_that_points_nowhere_is_shown_at_the_first_block() -> None:
    assert [(d.start, d.end) for d in editor.diagnostics("a f", max_seq_len=-3)] == [(0, 1)]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("f a f | attn*6", "f a f | a*6"),
        ("a(hedas=8)", "a(heads=8)"),
        ("a(heads=4, dropuot=0.1)", "a(heads=4, dropout=0.1)"),
        ("f(swiglu)", "f(glu, swish)"),
        ("f(ff_mult=2)", "f(mult=2)"),
        ("f(glu=yes)", "f(glu=true)"),
        ("afa f", "a f a f"),
        ("a2 f", "a*2 f"),
        ("a*6f", "a*6 f"),
        ("(a f", "(a f)"),
        ("x = (a f; x", "x = (a f); x"),
        ("a f)", "a f"),
        ("set dim=8, heads=2, dim=9; a", "set dim=8, heads=2; a"),
        ("a→f", "a=>f"),
        ("a -> f", "a => f"),
        ("a\u00a0f", "a f"),
        ("x = a f; a f", "a f"),
        ("a ^up <upp", "a ^up <up"),
    ],
)
def test_a_fix_does_what_the_hint_says(wrong: str, right: str) -> None:
    assert fixed(wrong) == right


def test_completions_are_what_can_be_written_there() -> None:
    assert {"a", "f", "sandwich", "set", "x"} <= {*labels("x = a f; §")}
    assert "set" not in labels("x = a f; a §")
    assert labels("f(glu, act§)")[0] == "activation"
    assert "heads" not in labels("a(heads=8, §)")
    assert "causal" not in labels("a(§, causal)")
    assert {"gelu", "silu"} <= {*labels("f(activation=§)")}
    assert labels("a(causal=§)")[:2] == ["true", "false"]
    assert "none" in labels("a(kv_heads=§)")
    assert labels("a ^u f <§") == ["u"]
    assert labels("a ^u f a(kv=§)") == ["u"]
    assert labels("a@x f@y a@§") == ["x", "y"]
    assert {"gain", "pop", "init"} <= {*labels("a ^u <u(§)")}
    assert labels("sandwich(§)") == ["k", "n"]
    assert "dim" in labels("set §")
    assert "enc_heads" in labels("set enc_§; a f => a c f")
    assert labels("a*§") == labels("a f # §") == labels("a(heads=8 §") == []


def test_words_of_the_field_find_ours() -> None:
    assert labels("set rope§")[0] == "rotary_pos_emb"
    assert labels("a(gqa§)")[0] == "kv_heads"


def test_a_completion_takes_the_place_of_the_whole_word() -> None:
    text, offset = at("f a att§ntion f")
    assert editor.completions(text, offset) == []
    text, offset = at("f(acti§vate=gelu)")
    (found,) = editor.completions(text, offset)
    assert editor.applied(text, [editor.Edit(found.start, found.end, found.label)]) == "f(activation=gelu)"


def test_models_of_the_zoo_are_offered_in_an_empty_text() -> None:
    assert "zoo:gpt2" in labels("§")
    assert "zoo:gpt2-xl" in labels("# a model\nzoo:gpt2§")
    text, offset = at("zoo:gpt2-x§")
    (found,) = editor.completions(text, offset)
    assert blockdsl.parse(editor.applied(text, [editor.Edit(found.start, found.end, found.insert)]))
    assert not any(label.startswith("zoo") for label in labels("a §"))


def test_hover_says_what_a_word_means() -> None:
    def words(text: str) -> str:
        found = editor.hover(*at(text))
        return "" if found is None else found.text

    assert words("§a f").startswith("a: self-attention")
    assert "attention heads" in words("a(he§ads=8)")
    assert "attention heads" in words("a(heads=§8)")
    assert "features of the stream" in words("set d§im=8; a")
    assert words("enc = (a f)*6; enc§ f") == "enc = (a f)*6\nused once"
    assert [words(f"enc§ = a; f {'enc ' * n}").splitlines()[1] for n in (0, 2, 3)] == [
        "used nowhere", "used twice", "used 3 times",
    ]  # fmt: skip
    assert words("(a f)@§s*2 f a@s") == "s: a tie, written twice; all its blocks share one set of parameters"
    assert "learned number" in words("a ^u <u(g§ain)")
    assert "arXiv:1911.03864" in words("sand§wich(6)")
    assert "parallel" in words("a §& f")
    assert words("a  §  f") == words("a # §a") == words("a(§$") == ""


def test_formatted_is_what_fmt_gives() -> None:
    assert editor.formatted("((a  f))*6 # six") == blockdsl.format_text("((a  f))*6 # six")


def test_names_are_renamed_wherever_they_are_used() -> None:
    def renamed(text: str, name: str) -> str:
        text, offset = at(text)
        return editor.applied(text, editor.rename(text, offset, name))

    assert renamed("x = a f; y = x§ x; y*2", "enc") == "enc = a f; y = enc enc; y*2"
    assert renamed("a@§x f@y a@x", "t") == "a@t f@y a@t"
    assert renamed("a ^§x a(kv=x) <x(pop) f@x", "u") == "a ^u a(kv=u) <u(pop) f@x"
    assert renamed("st§em: a f | x: a", "first") == "first: a f | x: a"


@pytest.mark.parametrize(
    ("text", "name", "problem"),
    [
        ("x§ = a f; x", "a", "it is a block kind"),
        ("x§ = a f; x", "par", "it is a macro"),
        ("x§ = a f; y = a; x y", "y", "there is a definition of that name"),
        ("a@§x", "2x", "a name has letters"),
        ("a§ f", "b", "definitions, labels, ties and stages can be renamed"),
        ("a  §  f", "b", "there is no name here"),
    ],
)
def test_a_name_that_cannot_be_is_refused(text: str, name: str, problem: str) -> None:
    text, offset = at(text)
    with pytest.raises(UserError, match=problem):
        editor.rename(text, offset, name)


@pytest.mark.parametrize(
    "text",
    [
        "x = a f; x*2 (a & f (a & f)) ^u <u(gain) sandwich(2)",
        "a ^u (f & <u) f",
        "(a f)*2 => (a c & f ^u <u)*2",
        "set dim=32, causal; (a f)@x*3 | stem: m",
    ],
)
def test_spans_name_every_node_of_the_graph_and_nothing_else(text: str) -> None:
    graph = blockdsl.compile(text, **({} if "dim" in text else {"dim": 32}))
    streams = graph.streams()
    nodes = {
        f"{side}.{node}" if len(streams) > 1 else node: attrs
        for side, stream in streams.items()
        for node, attrs in stream.nx.nodes(data=True)
        if attrs["type"] in ("block", "read", "sum")
    }
    spans = editor.spans(text)
    assert spans.keys() == nodes.keys()
    for node, attrs in nodes.items():
        written = text[slice(*spans[node][0])]
        assert written.startswith({"read": "<", "sum": ""}.get(attrs["type"], attrs.get("kind"))) or "(" in written


def test_spans_of_a_definition_are_what_it_says_and_where_it_is_used() -> None:
    def places(text: str) -> dict[str, list[str]]:
        found = editor.spans(text)
        return {node: [f"{text[slice(*span)]} {span.start}" for span in own] for node, own in found.items()}

    assert places("x = a f; x*2 c x") == {
        **{f"a{i}": ["a 4", "x 9"] for i in (0, 2)},
        **{f"f{i}": ["f 6", "x 9"] for i in (1, 3)},
        **{"c4": ["c 13"], "a5": ["a 4", "x 15"], "f6": ["f 6", "x 15"]},
    }
    assert places("x = a ^u <u; y = (x f)*2; y x")["a4"] == ["a 4", "x 28"]
    assert places("x = a ^u <u; y = (x f)*2; y x")["read1"] == ["<u 9", "x 18", "y 26"]
    branches = places("x = a f; y = x & f; (x & f) y (x & x)")
    assert branches["sum0"] == ["x & f 21"]
    assert branches["sum1"] == ["x & f 13", "y 28"]
    assert branches["sum2"] == ["x & x 31"]
    assert places("x = sandwich(1); x")["a0"] == ["sandwich(1) 4", "x 17"]


def test_spans_of_an_edited_graph_are_those_of_the_text_it_has_now() -> None:
    g = blockdsl.compile("(a f)*3", dim=16, heads=2)
    g.insert("f1", "f(glu)")
    g.remove("a4")
    text, found = g.pattern, editor.spans(g)
    assert found.keys() == {*g.nodes("block")}
    (new,) = {*g.nodes("block")} - {"a0", "f1", "a2", "f3", "f5"}
    ((start, end),) = found[new]
    assert text[start:end] == "f(glu)"
    assert [text[span.start : span.end] for node in ("a0", "a2", "f5") for span in found[node]] == ["a", "a", "f"]
    whole = blockdsl.compile("(a f)*2 => (a c f)*2", dim=16, heads=2)
    whole.replace("f2", "f(glu)")
    assert "decoder.f2" in editor.spans(whole)
    assert "encoder.a0" in editor.spans(whole)


def test_values_turn_into_json() -> None:
    text = "a ^u att f"
    found = {
        "diagnostics": editor.diagnostics(text),
        "completions": editor.completions(text, 7),
        "hover": editor.hover(text, 0),
        "spans": editor.spans("a f"),
        "tokens": editor.tokens(text),
    }
    back = json.loads(json.dumps(editor.as_json(found)))
    assert back["diagnostics"][0]["fix"] == {"start": 5, "end": 8, "text": "a"}
    assert back["tokens"][0] == {"start": 0, "end": 1, "type": "kind"}
    assert back["spans"] == {"a0": [[0, 1]], "f1": [[2, 3]]}


def test_a_kind_that_is_registered_later_is_known() -> None:
    request = {"do": "look", "text": "a feed"}
    assert respond(request)["picture"] is None
    blockdsl.register(replace(kind_of("f"), name="feed", builtin=False))
    try:
        assert respond(request)["picture"] is not None
    finally:
        blockdsl.unregister("feed")
    assert respond(request)["picture"] is None
