"""`str(parse(text))`: one text for all ways to say the same, and a tree that is equal exactly when the texts are."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from blockdsl import Pattern, parse

from .strategies import Program, plain, programs

# canonical text: other ways to write it
SAME: dict[str, tuple[str, ...]] = {
    "a": ("(a)", "((a))", "a()", " a # c", "\n(\ta)\n"),
    "a f": ("(a f)", "(a) f", "a (f)", "((a) (f))", "(a (f))", "a\nf", "a#\nf", "(a) (f)"),
    "a f a f": ("(a f) a f", "(a f) (a f)", "a (f a) f", "a (f (a f))"),
    "(a f)*6": ("(a f) * 6", "((a f))*6", "( a f )*06", "((a) f)*6", "(a (f))*6"),
    "a*6 f*6": ("(a*6) f*6", "(a*6 f*6)", "a*6(f*6)", "(a)*6 (f)*6", "((a)*6) (f*6)"),
    "(a*2)*3": ("((a*2))*3", "((a)*2)*3"),
    "a>>1": ("(a)>>1", "(a>>1)", "a >> 1", "a>>01"),
    "a>>1/2@x": ("a/2>>1@x", "a@x/2>>1", "(a>>1)/2@x", "((a/2)@x)>>1", "(a@x)/2>>1", "a >>1 /2 @ x"),
    "f/2": ("f/2.0", "f/2e0", "(f)/2", "(f/2)", "f /2"),
    "f/0.5": ("f/.5", "f/5e-1", "f/0.50"),
    "(a f)/2": ("((a f))/2", "(a f) / 2.", "((a) (f))/2"),
    "(a/2)/3": ("((a/2))/3", "((a)/2)/3"),
    "(a>>1)>>2": ("((a>>1))>>2",),
    "(a@x)@y": ("((a@x))@y",),
    "a & f": ("a&f", "(a) & (f)", "(a & f)", "((a) & f)"),
    "a & f & c": ("(a & f) & c", "a & (f & c)", "((a & f) & (c))", "a & ((f) & c)"),
    "a & f c": ("(a & f) c", "((a & f)) (c)"),
    "a & (f c)": ("a&(f c)", "(a & ((f c)))", "a & (f (c))"),
    "a*2 & f": ("(a*2) & f", "((a)*2) & (f)"),
    "(a & f)*2": ("((a & f))*2", "((a) & (f))*2"),
    "a | f": ("(a | f)", "(a) | (f)", "a|f"),
    "a | f c": ("(a | f) c", "a | (f c)", "(a | f c)"),
    "a f | c": ("a (f | c)", "(a f) | c"),
    "x: a f": ("(x: a) f", "x: (a f)", "(x: a f)", "x:a f", "x :a (f)"),
    "a | x: f": ("a (x: f)", "a | (x: f)", "(a | x: f)"),
    "x: a | y: f": ("(x: a) (y: f)", "(x: a | y: f)", "x: a (y: f)"),
    "(x: a | f)*2": ("((x: a) | (f))*2",),
    "f(glu)": ("f(glu=true)", "f( glu )", "f(glu = true)", "(f(glu))"),
    "f(glu=false)": ("f( glu=false )",),
    "a(heads=16, dim_head=32, causal)": (
        "a(causal, heads=16, dim_head=32)",
        "a(dim_head=32,causal=true,heads=016)",
        "a( # why\n heads=16\n,dim_head=32,causal)",
    ),
    "f(mult=2.5, dropout=0.1, layer_dropout=0.01)": ("f(layer_dropout=1e-2, dropout=.1, mult=2.50)",),
    "sandwich(6)": ("sandwich( 6 )", "(sandwich(6))"),
    "sandwich(k=3, n=6)": ("sandwich(n=6, k=3)",),
    "macaron(2, cross)": ("macaron(2,cross=true)", "macaron(cross, 2)"),
    "par(6, ratio=4)": ("par(ratio=4, 6)",),
    "x = a f; x*2": ("x=a f;x*2", "x = (a f); (x)*2", "x = a (f); x()*2"),
    "set dim=512, heads=8; a": ("set heads=8, dim=512; a", "set dim=512,heads=8;(a)", "set dim=512, heads=008;a"),
    "set causal; set dim=8; x = a; x": ("set causal=true;set dim=8;x=a;x",),
}

DIFFERENT = [
    ("a f", "f a"),
    ("a f", "a | f"),
    ("a f", "a & f"),
    ("a f", "x: a f"),
    ("x: a f", "y: a f"),
    ("a*2", "a a"),
    ("(a f)*2", "a f a f"),
    ("(a*2)*3", "(a*3)*2"),
    ("(a*2)*3", "a*6"),
    ("a>>1", "a"),
    ("a>>0", "a"),
    ("a>>1", "a>>2"),
    ("(a>>1)>>2", "(a>>2)>>1"),
    ("f/2", "f"),
    ("f/1", "f"),
    ("(f/2)/3", "f/6"),
    ("a@x", "a"),
    ("a@x", "a@y"),
    ("(a f)/2", "a f/2"),
    ("(a f)/2", "a/2 f/2"),
    ("a & (f c)", "a & f c"),
    ("a & f", "f & a"),
    ("(a | f)*2", "a | f a | f"),
    ("f(glu)", "f"),
    ("f(glu=false)", "f"),
    ("f(glu=false)", "f(glu)"),
    ("f(mult=4)", "f"),
    ("a(heads=8)", "c(heads=8)"),
    ("sandwich(6)", "sandwich(6, 6)"),
    ("sandwich(6)", "a*6 f*6"),
    ("x = a; x", "a"),
    ("x = a; x", "y = a; y"),
    ("set dim=512; a", "a"),
    ("set dim=512; a", "set dim=513; a"),
    ("set dim=512; set heads=8; a", "set dim=512, heads=8; a"),
]


@pytest.mark.parametrize(("canonical", "text"), [(c, t) for c, texts in SAME.items() for t in (c, *texts)])
def test_each_way_to_write_it_gives_the_canonical_text_and_an_equal_pattern(canonical: str, text: str) -> None:
    pattern = parse(text)
    assert str(pattern) == canonical
    assert pattern == parse(canonical)
    assert hash(pattern) == hash(parse(canonical))
    assert repr(pattern) == f"Pattern({canonical!r})"


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_patterns_that_are_written_differently_on_purpose_are_different(one: str, other: str) -> None:
    assert parse(one) != parse(other)
    assert str(parse(one)) != str(parse(other))
    assert str(parse(one)) == one
    assert str(parse(other)) == other


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(programs())
def test_canonical_text_parses_to_the_same_pattern_and_is_its_own_canonical_text(program: Program) -> None:
    pattern = parse(plain(program))
    text = str(pattern)
    again = parse(text)
    assert again == pattern
    assert str(again) == text
    assert again.expansion.stages == pattern.expansion.stages
    assert again.layer_types == pattern.layer_types


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(programs())
def test_canonical_text_has_single_spaces_and_no_parenthesis_that_could_go(program: Program) -> None:
    text = str(parse(plain(program)))
    assert text == " ".join(text.split())
    assert "( " not in text
    assert " )" not in text
    for opened in (i for i, sign in enumerate(text) if sign == "(" and (i == 0 or not text[i - 1].isalnum())):
        closed = _closing(text, opened)
        without = text[:opened] + " " + text[opened + 1 : closed] + " " + text[closed + 1 :]
        assert not _same(without, text)


def _closing(text: str, opened: int) -> int:
    depth = 0
    for i in range(opened, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    raise AssertionError(text)


def _same(text: str, canonical: str) -> bool:
    try:
        return parse(text) == parse(canonical)
    except ValueError:
        return False


def test_a_pattern_is_immutable_and_can_be_a_key() -> None:
    pattern = parse("a f")
    with pytest.raises(AttributeError):
        pattern.body = ()  # type: ignore[misc]
    assert {pattern: 1}[parse("(a) f")] == 1
    assert pattern != "a f"
    assert isinstance(pattern, Pattern)


def test_a_value_written_with_many_digits_keeps_them() -> None:
    assert str(parse("f(mult=2.7182818284590452)")) == "f(mult=2.718281828459045)"
    assert str(parse("f/1e17")) == "f/100000000000000000"
    assert parse(str(parse("f/123456789012345678"))) == parse("f/123456789012345678")
    assert str(parse("f/1e-9")) == "f/1e-09"
    assert parse("f/1e-09") == parse("f/1e-9")
