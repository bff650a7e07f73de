"""Two streams as one graph, `p => q`, against the same two graphs made by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

import blockdsl
from blockdsl import BlockGraph, GraphError, PatternError, UserError
from blockdsl.draw import side_by_side
from blockdsl.graph.costs import by_stage, sizes, total
from blockdsl.registry.streams import refusal

from .patterns import Model, models

TEXT = (
    "set dim=16, num_tokens=11, max_seq_len=13, tie_embedding, heads=2, enc_ff_mult=3, tie_token_emb; "
    "enc: (a f)*3 | f => (a c f)*2"
)
OPTIONS: dict[str, Any] = {"dim": 16, "heads": 2, "num_tokens": 11, "max_seq_len": 13}


def by_hand() -> tuple[BlockGraph, BlockGraph]:
    encoder = blockdsl.compile("enc: (a f)*3 | f", **OPTIONS, ff_mult=3, return_only_embed=True)
    return encoder, blockdsl.compile("(a c f)*2", **OPTIONS, causal=True, tie_embedding=True)


def test_one_text_is_the_two_graphs_made_by_hand() -> None:
    graph, (encoder, decoder) = blockdsl.compile(TEXT), by_hand()
    assert graph.pattern == TEXT
    assert graph.streams() == {"encoder": encoder, "decoder": decoder}
    assert (graph.encoder, decoder.encoder, decoder.streams()) == (encoder, None, {"": decoder})
    assert graph.streams()["decoder"].pattern == str(blockdsl.parse(TEXT).decoder)
    joined = decoder.with_encoder(encoder, tie_token_emb=True)
    assert joined == graph == BlockGraph.from_json(graph.to_json()) == graph.copy()
    assert graph != decoder
    assert graph != decoder.with_encoder(encoder)
    assert joined.pattern == "set tie_token_emb; enc: (a f)*3 | f => (a c f)*2"
    keywords = blockdsl.compile("enc: (a f)*3 | f => (a c f)*2", **OPTIONS, enc_ff_mult=3, tie_embedding=True)
    assert keywords == decoder.with_encoder(encoder)
    other = blockdsl.compile("set dim=8; a => c", enc_causal=True, dec_causal=False)
    assert (other.encoder is not None and other.encoder.causal, other.causal) == (True, False)
    both = other.streams()
    assert both["decoder"].with_encoder(both["encoder"]).pattern == "set dim=8, enc_causal, dec_causal=false; a => c"


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(models(kinds="af", tokens=False), models())
def test_any_two_streams_are_the_two_graphs(left: Model, right: Model) -> None:
    given_to_both = {name: value for name, value in right.settings.items() if refusal(name, value) is None}
    of_right = {f"dec_{n}": v for n, v in given_to_both.items() if n in ("rotary_pos_emb", "residual_attn")}
    given_to_both = {n: v for n, v in given_to_both.items() if f"dec_{n}" not in of_right} | of_right
    text = re.sub(r"\b(s\d+): ", r"l\1: ", re.sub("@", "@l", left.text)) + f" => {right.text} c"
    graph = blockdsl.compile(text, **given_to_both)
    pattern = blockdsl.parse(text)
    assert pattern.layer_types == (*left.blocks, *right.blocks, "c")
    assert blockdsl.parse(str(pattern)) == pattern
    encoder, decoder = graph.streams().values()
    assert blockdsl.compile(pattern.decoder, **{n.removeprefix("dec_"): v for n, v in given_to_both.items()}) == decoder
    assert graph == BlockGraph.from_json(graph.to_json()) == decoder.with_encoder(encoder)
    assert graph.parameters() == encoder.parameters() + decoder.parameters()
    assert graph.flops(3, 2, 5) == encoder.flops(5, 2) + decoder.flops(3, 2, 5)
    assert graph.kv_cache_bytes(3, 2, "float16", 5) == decoder.kv_cache_bytes(3, 2, "float16", 5)
    assert not graph.diff(graph.copy())


def test_an_edit_of_the_encoder_is_one_of_the_graph() -> None:
    graph = blockdsl.compile(TEXT)
    copy, encoder = graph.copy(), graph.encoder
    assert encoder is not None
    encoder.nx.nodes["f1"]["options"]["mult"] = 2.0
    assert graph != copy
    assert (graph.digest() == copy.digest(), graph.parameters() < copy.parameters()) == (False, True)
    encoder.nx.nodes["f1"]["options"]["mult"] = "two"
    with pytest.raises(GraphError, match="the encoder: f1: mult"):
        graph.lint()


def test_costs_are_those_of_both() -> None:
    graph, (encoder, decoder) = blockdsl.compile(TEXT), by_hand()
    assert graph.parameters() == encoder.parameters() + decoder.parameters() - 11 * 16
    assert graph.flops(5, 2, context_len=7) == encoder.flops(7, 2) + decoder.flops(5, 2, context_len=7)
    assert graph.kv_cache_bytes(5, 2, "float16", 7) == decoder.kv_cache_bytes(5, 2, "float16", 7)
    rows = by_stage(graph, sizes(5, 2, 7))
    names = ["encoder embedding", "encoder 1: enc", "encoder 2", "encoder head", "1", "embedding", "head"]
    assert sorted(name for name, _ in rows) == sorted(names)
    assert sum((cost.parameters for _, cost in rows)) == total(graph, sizes(5, 2, 7)).parameters == graph.parameters()
    images = blockdsl.compile(
        "a f => a c", dim=16, enc_image_size=8, enc_patch_size=2, dec_num_tokens=9, dec_max_seq_len=9
    )
    assert images.flops(4) == images.flops(4, context_len=100)
    own = images.streams()
    assert images.flops(4) == own["encoder"].flops(1) + own["decoder"].flops(4, context_len=16)


def test_deepnorm_is_that_of_an_encoder_and_a_decoder() -> None:
    """Wang et al., arXiv:2203.00555, table 3: N = 18 and M = 6."""
    graph = blockdsl.compile("set dim=8, deepnorm; (a f)*18 => (a c f)*6")
    encoder = graph.encoder
    assert encoder is not None
    ours, theirs = (g.nx.nodes["a0"]["options"] for g in (graph, encoder))
    assert theirs["scale_residual_constant"] == pytest.approx(0.81 * (18**4 * 6) ** (1 / 16))
    assert theirs["init_gain"] == pytest.approx(0.87 * (18**4 * 6) ** (-1 / 16))
    assert ours["scale_residual_constant"] == pytest.approx((3 * 6) ** 0.25)
    assert ours["init_gain"] == pytest.approx((12 * 6) ** -0.25)


def test_streams_of_two_widths() -> None:
    graph = blockdsl.compile("set enc_dim=24, dec_dim=16, heads=2; a f => a c f")
    assert graph.dim_context == 24
    narrow = blockdsl.compile(
        "set dim=24, enc_dim_in=3, enc_max_seq_len=9, enc_dim_out=8, dec_num_tokens=5; a => c", dec_max_seq_len=0
    )
    assert narrow.dim_context == 8
    wrong = "the encoder gives vectors of 24 features, and the decoder's cross-attention reads 8"
    with pytest.raises(GraphError, match=wrong):
        blockdsl.compile("set enc_dim=24, dec_dim=16, heads=2, dec_cross_attn_dim_context=8; a f => a c f")


@pytest.mark.parametrize(
    ("text", "keywords", "error", "message"),
    [
        ("set dim=8, rotary_pos_emb; conv => a c", {"enc_causal": True}, PatternError, "a setting of the other stream alone is dec_rotary_pos_emb"),
        ("set dim=8; conv => a c", {"enc_causal": True, "rotary_pos_emb": True}, UserError, "^the encoder: rotary_pos_emb is set, but no block"),
        ("set dim=8; a => c", {"causal": True}, TypeError, r"compile\(\) takes no causal= of two streams: the decoder is causal"),
        ("set dim=8; a => c", {"dec_pool": "mean"}, TypeError, "takes no dec_pool= of two streams: encoder and decoder give an output for each"),
        ("set dim=8; a => c", {"enc_headz": 1}, TypeError, "unknown setting 'enc_headz'; did you mean 'enc_heads'"),
        ("set dim=8; a c", {"enc_heads": 1}, TypeError, "unknown setting 'enc_heads'"),
        ("a => c", {}, UserError, "^the encoder: a stack needs dim"),
        ("set dim=8, tie_token_emb; a => c", {}, GraphError, "tie_token_emb is set, but encoder and decoder do not both read tokens"),
        ("set dim=8, tie_token_emb, max_seq_len=0, enc_num_tokens=3, dec_num_tokens=4; a => c", {}, GraphError, "the encoder has num_tokens=3 and the decoder num_tokens=4"),
        ("set dim=8; a => c", {"enc_image_size": 4, "enc_patch_size": 2, "enc_num_classes": 3}, GraphError, "gives logits; what the decoder reads are vectors"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(text: str, keywords: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        blockdsl.compile(text, **keywords)


def test_what_a_stream_reads_of_itself_is_its_own() -> None:
    text = "set dim=16, heads=2, rotary_pos_emb, cross_attn_rotary; ^u a <u f => a ^u f c(context=u) c"
    encoder, decoder = blockdsl.compile(text).streams().values()
    assert encoder == blockdsl.compile("^u a <u f", dim=16, heads=2, rotary_pos_emb=True)
    alone = blockdsl.compile(
        "a ^u f c(context=u) c", dim=16, heads=2, rotary_pos_emb=True, cross_attn_rotary=True, causal=True
    )
    assert decoder == alone
    for text, problem in (
        ("a f => a ^u f c(context=u)", "nothing on the right side of '=>' reads the left side"),
        ("a ^u f => <u c", "the label 'u' is on the left side of '=>', which is another sequence"),
        ("set enc_cross_attn_rotary; a => c", "two streams take no enc_cross_attn_rotary"),
    ):
        with pytest.raises(PatternError, match=problem):
            blockdsl.parse(text)
    assert blockdsl.parse("a ^u f c(context=u) => c").encoder is not None


def test_graphs_that_do_not_fit_are_refused() -> None:
    encoder, decoder = by_hand()
    with pytest.raises(GraphError, match="attends to no context, which an encoder would give it"):
        encoder.with_encoder(encoder)
    with pytest.raises(GraphError, match="the encoder: context: it attends to a context, and there is none"):
        decoder.with_encoder(blockdsl.compile("c", dim=16))
    logits = blockdsl.compile("a", **OPTIONS)
    with pytest.raises(GraphError, match="the encoder: output: gives logits"):
        decoder.with_encoder(logits)
    decoder.nx.nodes["context"].update(encoder="a f", tie_token_emb=True)
    with pytest.raises(
        GraphError, match=r"context: encoder must be a networkx.DiGraph, as another graph's nx, not 'a f'"
    ):
        decoder.lint()


def test_a_difference_is_that_of_each_stream() -> None:
    graph, (_, decoder) = blockdsl.compile(TEXT), by_hand()
    other = blockdsl.compile(TEXT.replace("(a f)*3", "(a f(glu))*3").replace("*2", "*1"))
    assert not graph.diff(graph.copy())
    found = graph.diff(other)
    assert found.encoder is not None
    assert [changed.before for changed in found.encoder.blocks] == ["f1", "f3", "f5"]
    assert found.removed == ("a3", "c4", "f5")
    text = found.to_text()
    assert text.startswith("encoder\n4 blocks alike · 3 changed\n")
    encoder, decoder_part = text.split("\n\ndecoder\n")
    assert "\nblocks\n  ~ 3 × f: glu false -> true   f1, f3, f5\n" in encoder
    assert "\nblocks\n  - a   a3\n" in decoder_part
    assert f" parameters {graph.parameters():,} -> {other.parameters():,}" in re.sub(" +", " ", text)
    drawn = found.to_svg()
    assert [drawn.count(f">{word}<") for word in ("encoder", "decoder", "before", "after")] == [1, 1, 2, 2]
    assert ">causal<" not in drawn  # both decoders are
    assert '"encoder": {' in found.to_json()
    tied = decoder.diff(graph)
    assert [(c.name, c.before, c.after) for c in tied.stack][:1] == [("tie_token_emb", False, True)]
    assert "encoder none -> set return_only_embed; set dim=16" in tied.to_text()


def test_a_drawing_has_both(tmp_path: Path) -> None:
    graph = blockdsl.compile(TEXT)
    encoder, decoder = graph.streams().values()
    (_, *ours), (_, *theirs) = (stream.to_text().split("\n") for stream in (encoder, decoder))
    title = "dim 16 · 2 heads of 64 · pre-norm LayerNorm · 13 blocks · 69,072 parameters, 176 shared"
    assert graph.to_text().split("\n") == [
        *(title, "", "encoder", "7 blocks · 2 stages · 31,616 parameters", *ours, ""),
        *("decoder: its context is the encoder's output", "causal · 6 blocks · 37,632 parameters", *theirs),
    ]
    assert graph.parameters() == 69_072 == 31_616 + 37_632 - 11 * 16
    forms = graph.to_svg(), graph.to_dot(), graph.to_mermaid(), graph.to_html()
    assert all(title in form for form in forms)
    assert "<desc>69.1 k parameters, 176 shared in all." in forms[0]
    assert ">69.1 k parameters, 176 shared · pre-norm LayerNorm · 31.6 k" in re.sub(
        "</text><text [^>]*>", " · ", forms[0]
    )
    assert graph.to_svg(tmp_path / "both.svg") == side_by_side(graph.streams(), model=graph)
    assert (tmp_path / "both.svg").read_text(encoding="utf-8") == graph.to_svg() + "\n"
    assert 'data-from="encoder.output" data-to="decoder.c1"' in graph.to_svg()
    assert "decoder" in graph.to_html()
    svg = graph.to_svg(color="params")
    numbers = re.findall(r'class="block kind-. (heat-\d)".*?class="value"[^>]*>([\d.]+ ?k?)', svg, re.S)
    assert len({*numbers}) == len({number for _, number in numbers}) == 3  # attention, and two widths of feedforwards
    assert svg.count(">least ") == 1
    mermaid = graph.to_mermaid()
    assert mermaid.count("-. context .->") == 1
    assert [*re.findall(r'subgraph \w+\["(.*)"\]', mermaid)] == [
        "encoder",
        "stage 1: enc",
        "×3",
        "stage 2",
        "decoder",
        "×2",
    ]
    dot = graph.to_dot()
    assert dot.count('"encoder.output" -> "decoder.c') == 2
    assert '"decoder.context"' not in dot
