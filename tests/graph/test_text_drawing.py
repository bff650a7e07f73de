"""The text drawing, whole pictures as literals; and, for random graphs, read back block by block."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blockdsl
from blockdsl import BlockGraph
from blockdsl.draw.words import ends
from blockdsl.registry.tokens import INPUT_OPTIONS, OUTPUT_OPTIONS

from ..work import LINEAR, growth
from .patterns import Model, models

SIZES = {"dim": 16, "heads": 2, "attn_dim_head": 4}
# dim 16: 4·16·8 + 2·16 in an attention, 8·16·16 + 5·16 + 2·16 in a feedforward, 2·16 in the final norm
ASCII = str.maketrans({"╌": "~", "│": "|", "├": "+", "─": "-", "╭": "/", "╰": "\\", "×": "x", "·": "-"})


def graph(pattern: str, **keywords: Any) -> BlockGraph:
    return blockdsl.compile(pattern, **(SIZES | keywords))


def check(g: BlockGraph, picture: str) -> None:
    """The picture is this one, and the ASCII picture differs by its glyphs alone."""
    picture = dedent(picture).strip("\n")
    assert g.to_text() == picture
    assert str(g) == picture
    plain = g.to_text(ascii=True)
    assert plain == picture.translate(ASCII).replace("√", "sqrt ")
    assert plain.isascii()


def test_a_plain_decoder() -> None:
    check(
        graph("(a f)*6", causal=True),
        """
        dim 16 · 2 heads of 4 · causal · pre-norm LayerNorm · 12 blocks · 16,256 parameters
        input
        │
        │  (a f) ×6
        │     a   self-attention · 2 heads × 4
        │     f   feedforward · GELU 64
        │
        output · LayerNorm
        """,
    )


def test_the_example_of_three_stages() -> None:
    check(
        graph("f a f | a*6 f*6 | sandwich(6)"),
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 27 blocks · 3 stages · 37,344 parameters
        input
        │
        ├─ stage 1
        │  f      feedforward · GELU 64
        │  a      self-attention · 2 heads × 4
        │  f      feedforward · GELU 64
        │
        ├─ stage 2
        │  a ×6   self-attention · 2 heads × 4
        │  f ×6   feedforward · GELU 64
        │
        ├─ stage 3
        │  a ×6   self-attention · 2 heads × 4
        │  f ×6   feedforward · GELU 64
        │
        output · LayerNorm
        """,
    )


def test_ascii_is_readable_by_itself() -> None:
    g = graph("f | deep: (a f*2 & f)*3", causal=True)
    assert g.to_text(ascii=True) == dedent(
        r"""
        dim 16 - 2 heads of 4 - causal - pre-norm LayerNorm - 13 blocks - 2 stages - 23,264 parameters
        input
        |
        +- stage 1
        |  f            feedforward - GELU 64
        |
        +- stage 2: deep
        |  (a (f x2 & f)) x3
        |     a         self-attention - 2 heads x 4
        |     / branch 1
        |     |  f x2   feedforward - GELU 64
        |     + branch 2
        |     |  f      feedforward - GELU 64
        |     \ sum
        |
        output - LayerNorm
        """
    ).strip("\n")


def test_named_stages_beside_one_without_a_name() -> None:
    check(
        graph("encoder: (a f)*2 | (a c f)*2 | head: f"),
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 11 blocks · 3 stages · 14,096 parameters
        input · beside a context
        │
        ├─ stage 1: encoder
        │  (a f) ×2
        │     a   self-attention · 2 heads × 4
        │     f   feedforward · GELU 64
        │
        ├─ stage 2
        │  (a c f) ×2
        │     a   self-attention · 2 heads × 4
        │     c   cross-attention · 2 heads × 4 · reads the context
        │     f   feedforward · GELU 64
        │
        ├─ stage 3: head
        │  f      feedforward · GELU 64
        │
        output · LayerNorm
        """,
    )


def test_one_named_stage_has_its_heading() -> None:
    check(
        graph("body: a"),
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 1 block · 576 parameters
        input
        │
        ├─ stage 1: body
        │  a   self-attention · 2 heads × 4
        │
        output · LayerNorm
        """,
    )


def test_branches_of_several_blocks_and_branches_inside_them() -> None:
    check(
        graph("f (a f f) & (a (f & a) f) & f(glu)"),
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 9 blocks · 15,712 parameters
        input
        │
        │  f           feedforward · GELU 64
        │  ╭ branch 1
        │  │  a        self-attention · 2 heads × 4
        │  │  f ×2     feedforward · GELU 64
        │  ├ branch 2
        │  │  a        self-attention · 2 heads × 4
        │  │  ╭ branch 1
        │  │  │  f     feedforward · GELU 64
        │  │  ├ branch 2
        │  │  │  a     self-attention · 2 heads × 4
        │  │  ╰ sum
        │  │  f        feedforward · GELU 64
        │  ├ branch 3
        │  │  f(glu)   feedforward · GEGLU 64
        │  ╰ sum
        │
        output · LayerNorm
        """,
    )


def test_a_branch_that_begins_with_branches() -> None:
    check(
        graph("((a & f) f) & (a & f)*2"),
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 7 blocks · 10,304 parameters
        input
        │
        │  ╭ branch 1
        │  │  ╭ branch 1
        │  │  │  a      self-attention · 2 heads × 4
        │  │  ├ branch 2
        │  │  │  f      feedforward · GELU 64
        │  │  ╰ sum
        │  │  f         feedforward · GELU 64
        │  ├ branch 2
        │  │  (a & f) ×2
        │  │     ╭ branch 1
        │  │     │  a   self-attention · 2 heads × 4
        │  │     ├ branch 2
        │  │     │  f   feedforward · GELU 64
        │  │     ╰ sum
        │  ╰ sum
        │
        output · LayerNorm
        """,
    )


def test_repeated_branches_are_drawn_once_and_headed_as_the_language_writes_them() -> None:
    # `a a & f` would be read as an attention, and then branches
    check(
        graph("((a f) & f)*4 ((a & f) f)*2"),
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 18 blocks · 29,216 parameters
        input
        │
        │  ((a f) & f) ×4
        │     ╭ branch 1
        │     │  a   self-attention · 2 heads × 4
        │     │  f   feedforward · GELU 64
        │     ├ branch 2
        │     │  f   feedforward · GELU 64
        │     ╰ sum
        │  ((a & f) f) ×2
        │     ╭ branch 1
        │     │  a   self-attention · 2 heads × 4
        │     ├ branch 2
        │     │  f   feedforward · GELU 64
        │     ╰ sum
        │     f      feedforward · GELU 64
        │
        output · LayerNorm
        """,
    )


def test_ties() -> None:
    check(
        graph("(a@x f@y)*12"),
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 24 blocks · 2,736 parameters
        input
        │
        │  (a@x f@y) ×12
        │     a@x   self-attention · 2 heads × 4
        │     f@y   feedforward · GELU 64
        │
        output · LayerNorm
        """,
    )


def test_ties_of_groups_and_of_blocks_used_otherwise() -> None:
    check(
        graph("(a f)@g*2 a@x f a@x>>1/2"),
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 7 blocks · 5,440 parameters
        input
        │
        │  (a@g.0 f@g.1) ×2
        │     a@g.0   self-attention · 2 heads × 4
        │     f@g.1   feedforward · GELU 64
        │  a@x        self-attention · 2 heads × 4
        │  f          feedforward · GELU 64
        │  a>>1/2@x   self-attention · 2 heads × 4
        │
        output · LayerNorm
        """,
    )


def test_positions_and_a_context() -> None:
    check(
        graph("a a(dim_head=8) c f", rotary_pos_emb=True),
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 4 blocks · 4,336 parameters
        input · beside a context
        │
        │  a               self-attention · 2 heads × 4 · rotary 2
        │  a(dim_head=8)   self-attention · 2 heads × 8 · rotary 4
        │  c               cross-attention · 2 heads × 4 · reads the context
        │  f               feedforward · GELU 64
        │
        output · LayerNorm
        """,
    )


def test_residual_attention_folds_and_says_whose_scores_are_added() -> None:
    check(
        graph("(a f)*4 | a & (f a) a", residual_attn=True),
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 12 blocks · 2 stages · 14,640 parameters
        RealFormer residual attention
        input
        │
        ├─ stage 1
        │  a      self-attention · 2 heads × 4
        │  f      feedforward · GELU 64
        │  (a f) ×3
        │     a   self-attention · 2 heads × 4 · adds the scores of the previous 'a'
        │     f   feedforward · GELU 64
        │
        ├─ stage 2
        │  ╭ branch 1
        │  │  a   self-attention · 2 heads × 4 · adds the scores of the previous 'a'
        │  ├ branch 2
        │  │  f   feedforward · GELU 64
        │  │  a   self-attention · 2 heads × 4 · adds the scores of the 'a' 2 back
        │  ╰ sum
        │  a      self-attention · 2 heads × 4 · adds the scores of the previous 'a'
        │
        output · LayerNorm
        """,
    )


def test_residual_cross_attention_in_repeated_branches() -> None:
    check(
        graph("c (c & c)*50", cross_residual_attn=True),
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 101 blocks · 54,976 parameters
        RealFormer residual cross-attention
        input · beside a context
        │
        │  c         cross-attention · 2 heads × 4 · reads the context
        │  (c & c) ×50
        │     ╭ branch 1
        │     │  c   cross-attention · 2 heads × 4 · reads the context · adds the scores of the previous 'c'
        │     ├ branch 2
        │     │  c   cross-attention · 2 heads × 4 · reads the context · adds the scores of the 'c' 2 back
        │     ╰ sum
        │
        output · LayerNorm
        """,
    )


def test_embedded_tokens() -> None:
    check(
        graph("(a f)*3", num_tokens=50257, max_seq_len=2048, tie_embedding=True, use_rmsnorm=True),
        """
        dim 16 · 2 heads of 4 · pre-norm RMSNorm · 6 blocks · 844,912 parameters
        input · 50,257 tokens, up to 2,048 a row · learned positions
        │
        │  (a f) ×3
        │     a   self-attention · 2 heads × 4
        │     f   feedforward · GELU 64
        │
        output · RMSNorm · logits of 50,257 tokens (tied to the embedding) · logits × 1/√dim
        """,
    )
    assert (
        graph("a", num_tokens=300, max_seq_len=9, logits_bias=False)
        .to_text()
        .endswith("\noutput · LayerNorm · logits of 300 tokens")
    )


def test_what_is_around_the_stack() -> None:
    settings = {
        **{"num_tokens": 300, "max_seq_len": 9, "emb_dim": 6, "post_emb_norm": True, "num_memory_tokens": 2},
        **{"scaled_sinu_pos_emb": True, "emb_dropout": 0.1, "logits_dim": 1000},
    }
    lines = graph("a", **settings).to_text().splitlines()
    assert lines[1] == (
        "input · 300 tokens, up to 9 a row · embedding of 6 features · LayerNorm after it · embedding dropout 0.1"
        " · 2 memory tokens · sinusoidal positions"
    )
    assert lines[-1] == "output · LayerNorm · 1,000 logits · bias of the logits"
    text = graph("a", num_tokens=300, max_seq_len=9, return_only_embed=True).to_text()
    assert text.endswith("\noutput · LayerNorm")


def test_settings_of_the_model_are_said_in_words_and_not_as_a_pattern_has_them() -> None:
    declared = [option for option in (*INPUT_OPTIONS, *OUTPUT_OPTIONS) if option.name not in ends._SAID]
    assert {option.name for option in declared} == ends.MODEL_WORDS.keys()
    tokens = {"num_tokens": 300, "max_seq_len": 9}
    tied = graph("a", **tokens, tie_embedding=True, logits_scale=1).to_text().splitlines()[-1]
    assert tied.endswith("(tied to the embedding)"), "a factor of 1 says nothing"
    tied = graph("a", **tokens, tie_embedding=True).to_text().splitlines()[-1]
    assert tied.endswith("(tied to the embedding) · logits × 1/√dim")
    assert graph("a", **tokens).to_text().endswith(" · bias of the logits")
    assert graph("a", **tokens, logits_bias=False).to_text().endswith(" · logits of 300 tokens")


def test_nested_repeats() -> None:
    check(
        graph("((a f)*3 (f/2 a)*2 f(glu))*4 f"),
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 45 blocks · 69,264 parameters
        input
        │
        │  ((a f) ×3 (f/2 a) ×2 f(glu)) ×4
        │     (a f) ×3
        │        a     self-attention · 2 heads × 4
        │        f     feedforward · GELU 64
        │     (f/2 a) ×2
        │        f/2   feedforward · GELU 64
        │        a     self-attention · 2 heads × 4
        │     f(glu)   feedforward · GEGLU 64
        │  f           feedforward · GELU 64
        │
        output · LayerNorm
        """,
    )


def test_a_repeat_too_wide_to_head_itself_is_headed_by_its_number_of_blocks() -> None:
    check(
        graph("(a(heads=4, dim_head=8, causal)>>1 f(glu, swish)/2 (a & f*2))*12"),
        """
        dim 16 · 4 heads of 8 · pre-norm LayerNorm · 60 blocks · 122,336 parameters
        input
        │
        │  (5 blocks) ×12
        │     a(heads=4, dim_head=8, causal)>>1   self-attention · 4 heads × 8
        │     f(glu, swish)/2                     feedforward · SwiGLU 64
        │     ╭ branch 1
        │     │  a                                self-attention · 2 heads × 4
        │     ├ branch 2
        │     │  f ×2                             feedforward · GELU 64
        │     ╰ sum
        │
        output · LayerNorm
        """,
    )


def test_a_post_norm_stack_of_one_block_has_no_final_norm() -> None:
    check(
        graph("f", pre_norm=False),
        """
        dim 16 · post-norm LayerNorm · 1 block · 2,160 parameters
        input
        │
        │  f   feedforward · GELU 64
        │
        output
        """,
    )


def test_a_thousand_blocks_fold_to_a_few_lines() -> None:
    g = graph("(a f)*250 | ((a & (f f)) f)*100 (a@x f)*50", num_tokens=300, max_seq_len=1000)
    check(
        g,
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 1,000 blocks · 2 stages · 1,512,876 parameters
        input · 300 tokens, up to 1,000 a row · learned positions
        │
        ├─ stage 1
        │  (a f) ×250
        │     a         self-attention · 2 heads × 4
        │     f         feedforward · GELU 64
        │
        ├─ stage 2
        │  ((a & f ×2) f) ×100
        │     ╭ branch 1
        │     │  a      self-attention · 2 heads × 4
        │     ├ branch 2
        │     │  f ×2   feedforward · GELU 64
        │     ╰ sum
        │     f         feedforward · GELU 64
        │  (a@x f) ×50
        │     a@x       self-attention · 2 heads × 4
        │     f         feedforward · GELU 64
        │
        output · LayerNorm · logits of 300 tokens · bias of the logits
        """,
    )
    text = "(a f)*{0} | ((a & (f f)) f)*{0} (a@x f)*{0}"
    graphs = {size: graph(text.format(size)) for size in (75, 150)}
    assert growth(lambda size: graphs[size].to_text(), 75) < LINEAR


# Edited graphs -----------------------------------------------------------------------------------------------------


def test_a_branch_that_begins_elsewhere_gives_its_gain_to_its_sum() -> None:
    g = graph("a f | (a & f f) f", residual_attn=True)
    g.nx.add_edge("a0", "f5")
    g.nx.add_edge("a0", "sum0")  # a branch that does not start where the others do
    check(
        g,
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 6 blocks · 2 stages · 9,760 parameters
        RealFormer residual attention
        input
        │
        ├─ stage 1
        │  a      self-attention · 2 heads × 4
        │  ^a0
        │  f      feedforward · GELU 64
        │
        ├─ stage 2
        │  ╭ branch 1
        │  │  a   self-attention · 2 heads × 4 · adds the scores of the previous 'a'
        │  ├ branch 2
        │  │  f   feedforward · GELU 64
        │  ╰ sum
        │  <a0    the gain of the stream after a0, added
        │  f      feedforward · GELU 64
        │  <a0    the stream after a0, added
        │  f      feedforward · GELU 64
        │
        output · LayerNorm
        """,
    )


def test_streams_of_further_up_are_read_where_they_are_added() -> None:
    g = graph("a f | (a & f f) f", residual_attn=True)
    g.nx.add_edge("a0", "f5")
    g.nx.add_edge("f1", "output")
    check(
        g,
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 6 blocks · 2 stages · 9,760 parameters
        RealFormer residual attention
        input
        │
        ├─ stage 1
        │  a      self-attention · 2 heads × 4
        │  ^a0
        │  f      feedforward · GELU 64
        │  ^f1
        │
        ├─ stage 2
        │  ╭ branch 1
        │  │  a   self-attention · 2 heads × 4 · adds the scores of the previous 'a'
        │  ├ branch 2
        │  │  f   feedforward · GELU 64
        │  ╰ sum
        │  f      feedforward · GELU 64
        │  <a0    the stream after a0, added
        │  f      feedforward · GELU 64
        │  <f1    the stream after f1, added
        │
        output · LayerNorm
        """,
    )


def test_where_the_stream_has_a_gap_a_row_says_so() -> None:
    g = graph("(a f)*2")
    g.nx.remove_node("f1")
    check(
        g,
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 3 blocks · 3,280 parameters
        input
        │
        │  a   self-attention · 2 heads × 4
        │  ╌ gap
        │  a   self-attention · 2 heads × 4 · reads no stream
        │  f   feedforward · GELU 64
        │
        output · LayerNorm
        """,
    )


def test_a_branch_that_also_feeds_another_has_a_way_beside_it() -> None:
    # as two branches the attention would be drawn twice
    g = graph("a & f")
    g.nx.remove_edge("input", "f1")
    g.nx.add_edge("a0", "f1")
    check(
        g,
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 2 blocks · 2,736 parameters
        input
        │
        │  ╭ branch 1
        │  │  a      self-attention · 2 heads × 4
        │  │  ╭ beside the stream
        │  │  │  f   feedforward · GELU 64
        │  │  │  ^f1
        │  │  ╰ end
        │  ╰ sum
        │  <f1       the gain of the stream after f1, added
        │
        output · LayerNorm
        """,
    )


def test_a_sum_without_a_base_is_a_row_of_its_own() -> None:
    g = graph("a f")
    g.nx.add_node("both", type="sum", stage=0)
    g.nx.remove_edge("f1", "output")
    g.nx.add_edges_from([("a0", "both"), ("f1", "both"), ("both", "output")])
    check(
        g,
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 2 blocks · 2,736 parameters
        input
        │
        │  a         self-attention · 2 heads × 4
        │  ^a0
        │  f         feedforward · GELU 64
        │  sum <a0   the stream after a0, added
        │
        output · LayerNorm
        """,
    )


def test_an_edit_that_leaves_chains_and_branches_is_drawn_as_such() -> None:
    g = graph("(a f)*3 a & f")
    g.nx.remove_node("f3")
    g.nx.add_edge("a2", "a4")
    g.nx.remove_node("f7")
    check(
        g,
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 6 blocks · 6,528 parameters
        input
        │
        │  a      self-attention · 2 heads × 4
        │  f      feedforward · GELU 64
        │  a ×2   self-attention · 2 heads × 4
        │  f      feedforward · GELU 64
        │  ╭ branch 1
        │  │  a   self-attention · 2 heads × 4
        │  ╰ sum
        │
        output · LayerNorm
        """,
    )


def test_a_changed_option_is_shown_and_not_folded_away() -> None:
    g = graph("(a f)*6")
    g.nx.nodes["f3"]["options"]["glu"] = True
    check(
        g,
        """
        dim 16 · 2 heads of 4 · pre-norm LayerNorm · 12 blocks · 17,344 parameters
        input
        │
        │  a        self-attention · 2 heads × 4
        │  f        feedforward · GELU 64
        │  a        self-attention · 2 heads × 4
        │  f(glu)   feedforward · GEGLU 64
        │  (a f) ×4
        │     a     self-attention · 2 heads × 4
        │     f     feedforward · GELU 64
        │
        output · LayerNorm
        """,
    )


def test_an_option_that_the_text_set_is_shown_with_its_new_value() -> None:
    g = graph("a(heads=4) f")
    g.nx.nodes["a0"]["options"]["heads"] = 2
    assert "│  a(heads=2)   self-attention · 2 heads × 4" in g.to_text()
    # of two blocks that differ neither is the usual one
    g = graph("f f")
    g.nx.nodes["f1"]["options"]["mult"] = 2
    assert "│  f(mult=4)   feedforward · GELU 64\n│  f(mult=2)   feedforward · GELU 32" in g.to_text()


def test_scores_are_counted_back_in_the_order_drawn() -> None:
    # a node added last is drawn where it runs
    g = graph("a f a", residual_attn=True)
    g.nx.add_node("a9", **{**g.nx.nodes["a0"], "options": {**g.nx.nodes["a0"]["options"]}})
    g.nx.remove_edge("a0", "f1")
    g.nx.add_edge("a0", "a9")
    g.nx.add_edge("a9", "f1")
    assert g.lint().to_text().splitlines()[4:8] == [
        "│  a ×2   self-attention · 2 heads × 4",
        "│  f      feedforward · GELU 64",
        "│  a      self-attention · 2 heads × 4 · adds the scores of the 'a' 2 back",
        "│",
    ]


# Read back ---------------------------------------------------------------------------------------------------------

NAME = re.compile(r"(?:\w+: )?(?P<kind>[a-z]+)(?:\(.*?\))?(?:>>(?P<shift>\d+))?(?:/(?P<by>[\d.]+))?(?:@(?P<tie>\w+))?")


Told = tuple[str, int, float, str | None]


def read(picture: str) -> list[Told]:
    """The blocks a picture stands for, left to right, each repeat written out: kind, shift, scale and tie."""
    return [each for each in read_all(picture) if each[0] not in ("sum", "read")]


def read_all(picture: str) -> list[Told]:
    """The same with its sums and reads, which are said by these words in place of a kind."""
    rows: list[tuple[int, str]] = []
    lines = picture.splitlines()
    for line in lines[lines.index("│") : -1]:
        text = line.lstrip("│ ")
        if text and not line.startswith("├─"):
            rows.append((len(line) - len(text), text))
    told, end = read_from(rows, 0, 0)
    assert end == len(rows)
    return told


def read_from(rows: list[tuple[int, str]], at: int, column: int) -> tuple[list[Told], int]:
    """From the row `at` on, up to one that begins left of `column`."""
    out: list[Told] = []
    while at < len(rows) and rows[at][0] >= column:
        here, row = rows[at]
        text, _, note = row.partition("   ")
        at += 1
        if text.startswith(("╭", "├", "╰ end", "╌ gap", "^")) or (text[0] == "<" and "the gain of" in note):
            continue
        if text[0] == "<" and re.search(r"(the input|the stream after .*), added( ·|$)", note):
            continue
        text, _, times = text.partition(" ×") if not text.startswith("(") else text.rpartition(" ×")
        if text.startswith("("):
            inside, at = read_from(rows, at, here + 1)
        elif text.startswith(("<", "╰ sum", "sum")):
            inside = [("read" if text[0] == "<" else "sum", 0, 1.0, None)]
        else:
            found = NAME.fullmatch(text)
            assert found, text
            inside = [(found["kind"], int(found["shift"] or 0), 1 / float(found["by"] or 1), found["tie"])]
        out += inside * int(times or 1)
    return out, at


def want(g: BlockGraph) -> list[tuple[str, int, Any, str | None]]:
    nodes = [g.nx.nodes[node] for node in g.nodes("block")]
    return [(n["kind"], n["shift"], pytest.approx(n["scale"], rel=1e-4), n["tie"]) for n in nodes]


def test_the_reader_counts_what_a_picture_says() -> None:
    # the reader itself, on a picture that no code drew
    picture = dedent(
        """
        dim 16
        input
        │
        ├─ stage 1
        │  ((a & f ×2) f) ×2
        │     ╭ branch 1
        │     │  a@x   self-attention
        │     ├ branch 2
        │     │  f>>1/2 ×2   feedforward
        │     ╰ sum
        │     f(glu)   feedforward
        │  c ×3   cross-attention
        │
        output
        """
    ).strip("\n")
    twice = [("a", 0, 1.0, "x"), ("f", 1, 0.5, None), ("f", 1, 0.5, None), ("f", 0, 1.0, None)]
    assert read(picture) == twice * 2 + [("c", 0, 1.0, None)] * 3


@settings(max_examples=100)
@given(models())
def test_a_drawing_stands_for_the_blocks_of_its_graph(model: Model) -> None:
    g = blockdsl.compile(model.text, **model.settings)
    picture = g.to_text()
    assert read(picture) == want(g)
    assert tuple(kind for kind, *_ in read(picture)) == model.blocks
    assert picture.count("├─ stage") == (len(g.stages) if g.stages != [None] else 0)
    assert g.to_text(ascii=True).isascii()
    assert all(line == line.rstrip() for line in picture.splitlines())


@settings(max_examples=60)
@given(models(tokens=False), st.data())
def test_a_drawing_of_an_edited_graph_stands_for_its_blocks(model: Model, data: st.DataObject) -> None:
    g = blockdsl.compile(model.text, **model.settings)
    ends = g.sources("output", "stream")
    g.nx.add_edge(data.draw(st.sampled_from(g.nodes("block"))), "output")
    drawn = read(g.lint().to_text())
    assert sorted(kind for kind, *_ in drawn) == sorted(model.blocks)
    added = [source for source in g.sources("output", "stream") if source not in ends]
    assert added == [
        source for line in g.to_text().splitlines() for source in re.findall(r"  <(\w+) +the stream", line)
    ]


@settings(max_examples=30)
@given(st.text("afc", min_size=1, max_size=6), st.integers(2, 300))
def test_a_repeat_is_no_longer_than_what_is_repeated(unit: str, times: int) -> None:
    g = graph(f"({' '.join(unit)})*{times}")
    assert len(read(g.to_text())) == len(unit) * times
    assert len(g.to_text().splitlines()) <= 2 * len(unit) + 6
