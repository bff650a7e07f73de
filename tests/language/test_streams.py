"""Two streams in one text, `p => q`: what each is alone, the canonical text, its layout."""

from __future__ import annotations

import pytest

from blockdsl import parse
from blockdsl.language.format import format_text
from blockdsl.language.join import join

WHOLE = (
    "set dim=64, num_tokens=100, max_seq_len=9, tie_embedding, heads=8, enc_heads=4, tie_token_emb; "
    "x = a f; y = x x; z = c f; enc: y*2 | f => (x z)*3 | dec: f"
)
ENCODER = "set return_only_embed; set dim=64, num_tokens=100, max_seq_len=9, heads=4; x = a f; y = x x; enc: y*2 | f"
DECODER = (
    "set causal; set dim=64, num_tokens=100, max_seq_len=9, tie_embedding, heads=8; x = a f; z = c f; (x z)*3 | dec: f"
)


def test_each_stream_is_a_pattern_of_its_own_with_its_settings_and_definitions() -> None:
    pattern = parse(WHOLE)
    assert str(pattern) == WHOLE
    assert pattern == parse(f"# of two\n{WHOLE.replace(' => ', '=>')}")
    assert pattern != parse(ENCODER) != parse(DECODER)
    assert pattern.encoder == parse(ENCODER)
    assert pattern.decoder == parse(DECODER)
    assert parse("a c").encoder is None
    assert parse("a c").decoder == parse("a c")
    assert pattern.layer_types == (*("a", "f") * 4, "f", *("a", "f", "c", "f") * 3, "f")
    assert pattern.stage_names == ("enc", None, None, "dec")
    assert [stage.layer_types for stage in pattern.stages] == [("a", "f") * 4, ("f",), ("a", "f", "c", "f") * 3, ("f",)]
    assert pattern.unused_definitions == ()
    assert parse("x = a; y = x; a => c").unused_definitions == ("y",)


@pytest.mark.parametrize(
    ("encoder", "decoder", "whole"),
    [
        ("(a f)*2", "set causal; (a c f)*2", "(a f)*2 => (a c f)*2"),
        ("set dim=8; a", "set dim=8, causal, tie_embedding; c", "set dim=8, tie_embedding; a => c"),
        (
            "set heads=2, attn_qk_norm; a",
            "set heads=4, causal; c",
            "set enc_heads=2, enc_attn_qk_norm, dec_heads=4; a => c",
        ),
        ("x = a f; x", "set causal; x = a f; x c", "x = a f; x => x c"),
        ("x = a f; y = f x; (y & x/2)*2", "set causal; x = f; x c@t", "((f a f) & (a f)/2)*2 => f c@t"),
    ],
)
def test_two_texts_become_one(encoder: str, decoder: str, whole: str) -> None:
    assert join(encoder, decoder, {}) == whole
    assert str(parse(whole)) == whole
    for side, text in (("encoder", encoder), ("decoder", decoder)):
        own = getattr(parse(whole), side)
        assert (own.expansion.stages, own.settings) == (parse(text).expansion.stages, parse(text).settings)
        blocks = ([(b.kind, b.shift, b.divide, b.tie) for b in p.expansion.blocks()] for p in (own, parse(text)))
        assert next(blocks) == next(blocks)


def test_a_long_pattern_is_broken_before_the_arrow() -> None:
    long = "(a(heads=4, dim_head=33) f(mult=3, glu))*6"
    text = f"{long} | {long} => (a c f)*6 | {long}  # of the right"
    assert format_text(text) == f"{long}\n| {long}\n=> (a c f)*6\n| {long}  # of the right\n"
    assert format_text(format_text(text)) == format_text(text)
    assert format_text("(a f)*6   # left\n => (a c f)*6") == "(a f)*6  # left\n=> (a c f)*6\n"
