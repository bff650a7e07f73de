"""Settings of the stack: where each value comes from, which one wins, and what clashes."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

import pytest

from blockdsl import PatternError, UserError, parse
from blockdsl.graph.resolve import ResolvedBlock, ResolvedBranches, ResolvedPattern, resolve
from blockdsl.registry.kinds import kinds
from blockdsl.registry.settings import STACK_SETTINGS, table


def blocks(stack: ResolvedPattern) -> list[ResolvedBlock]:
    def walk(steps: tuple[ResolvedBlock | ResolvedBranches, ...]) -> list[ResolvedBlock]:
        out: list[ResolvedBlock] = []
        for step in steps:
            out += [step] if isinstance(step, ResolvedBlock) else [b for branch in step.branches for b in walk(branch)]
        return out

    return walk(stack.steps)


def options(text: str, name: str, **keywords: Any) -> list[Any]:
    """The option's value in every block, None where the block has no such option."""
    return [block.options.get(name) for block in blocks(resolve(text, **({"dim": 8} | keywords)))]


# Which value wins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "keywords", "heads"),
    [
        ("a", {}, 8),
        ("set heads=2; a", {}, 2),
        ("a", {"heads": 3}, 3),
        ("set heads=2; a", {"heads": 3}, 3),
        ("a(heads=5)", {}, 5),
        ("set heads=2; a(heads=5)", {"heads": 3}, 5),
        ("a(heads=8)", {"heads": 3}, 8),  # an option that is written counts, even at its declared default
    ],
)
def test_a_block_wins_over_a_keyword_that_wins_over_set_that_wins_over_the_default(
    text: str, keywords: dict[str, Any], heads: int
) -> None:
    assert options(text, "heads", **keywords) == [heads]


def test_a_setting_goes_to_every_block_that_has_the_option_and_sets_none() -> None:
    text = "a f & c(heads=2) a(heads=4) f"
    assert options(text, "heads", heads=3) == [3, None, 2, 4, None]
    assert options("a c f f(dropout=0.5)", "dropout", ff_dropout=0.25, attn_dropout=0.125) == [0.125, 0.125, 0.25, 0.5]
    assert options("a c f(pre_norm)", "pre_norm", pre_norm=False) == [False, False, True]
    assert options("a f", "layer_dropout", layer_dropout=0.5) == [0.5, 0.5]
    assert options("a c", "residual_attn", residual_attn=True) == [True, False]
    assert options("a c", "residual_attn", cross_residual_attn=True) == [False, True]


def test_one_block_of_a_causal_stack_may_look_ahead() -> None:
    assert options("a a(causal=false) a", "causal", causal=True) == [True, False, True]


def test_the_stacks_own_settings_and_all_that_were_given_are_told() -> None:
    stack = resolve("set dim=64, heads=2; a c", causal=True, dim=32)
    assert stack.dim == 32
    assert stack.given == {"dim": 32, "heads": 2, "causal": True}
    assert stack.settings["causal"] is True
    assert stack.settings["shift_tokens"] == 0
    assert stack.pattern == parse("set dim=64, heads=2; a c")
    assert sorted(stack.settings) == sorted(option.name for option in STACK_SETTINGS)


def test_a_shift_of_the_stack_goes_to_blocks_that_set_none() -> None:
    stack = resolve("a a>>0 (f>>2 a)>>1", dim=8, shift_tokens=3)
    assert [block.shift for block in blocks(stack)] == [3, 0, 2, 1]


def test_a_head_takes_its_share_of_dim_where_dim_head_is_none() -> None:
    assert options("a a(heads=4)", "dim_head", dim=24, heads=2, attn_dim_head=None) == [12, 6]
    assert options("a(dim_head=none) a", "dim_head", dim=24, heads=2) == [12, 64]


def test_scale_tie_stage_and_place_come_from_the_text() -> None:
    text = "a@x | (f a@x)/2"
    first, second, third = blocks(resolve(text, dim=8))
    assert [b.scale for b in (first, second, third)] == [1, 0.5, 0.5]
    assert [b.tie for b in (first, second, third)] == ["x", None, "x"]
    assert [b.stage for b in (first, second, third)] == [0, 1, 1]
    assert text[slice(*second.span)] == "f"
    assert (first.given, first.kind) == ({}, "a")


def test_parallel_branches_stay_branches() -> None:
    (step,) = resolve("(a f) & c", dim=8).steps
    assert isinstance(step, ResolvedBranches)
    assert [[b.kind for b in branch if isinstance(b, ResolvedBlock)] for branch in step.branches] == [["a", "f"], ["c"]]


def test_a_text_or_a_pattern_is_resolved() -> None:
    assert resolve("a f", dim=8).steps == resolve(parse("a f"), dim=8).steps


# Keywords that are wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"head": 4}, "compile() got an unknown setting 'head'; did you mean 'heads'?"),
        (
            {"rotary": True},
            "compile() got an unknown setting 'rotary'; did you mean 'rotary_pos_emb'?",
        ),
        ({"ffmult": 2}, "compile() got an unknown setting 'ffmult'; did you mean 'ff_mult'?"),
        ({"mult": 2}, "compile() got an unknown setting 'mult'; did you mean 'ff_mult' or 'moe_mult'?"),
        (
            {"dropout": 0.1},
            "compile() got an unknown setting 'dropout'; "
            "did you mean 'attn_dropout', 'attn_sublayer_dropout', 'cross_attn_tokens_dropout', 'emb_dropout',\n"
            "'ff_dropout', 'ff_sublayer_dropout', 'layer_dropout' or 'moe_dropout'?",
        ),
        ({"qqq": 1}, "compile() got an unknown setting 'qqq'"),
    ],
)
def test_an_unknown_keyword_is_a_type_error_with_the_nearest_name(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        resolve("a f", dim=8, **keywords)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"dim": 0}, "dim must be a whole number of at least 1, not 0"),
        ({"dim": 8.0}, "dim must be a whole number of at least 1, not 8.0"),
        ({"dim": True}, "dim must be a whole number of at least 1, not true"),
        ({"dim": "8"}, "dim must be a whole number of at least 1, not '8'"),
        ({"dim": None}, "dim must be a whole number of at least 1, not none"),
        ({"dim": 10**18}, "dim must be below 1e18"),
        ({"dim": -(10**5000)}, "dim must be above -1e18"),
        ({"dim": [8]}, "dim must be a whole number of at least 1, not (8)"),
        ({"heads": -1}, "heads must be a whole number of at least 1, not -1"),
        ({"attn_dim_head": 0}, "attn_dim_head must be a whole number of at least 1 or none, not 0"),
        ({"attn_dropout": 1}, "attn_dropout must be a number of at least 0 and below 1, not 1"),
        ({"attn_dropout": -0.1}, "attn_dropout must be a number of at least 0 and below 1, not -0.1"),
        ({"attn_dropout": float("nan")}, "attn_dropout must be a number of at least 0 and below 1, not nan"),
        ({"ff_mult": float("inf")}, "ff_mult must be below 1e18"),
        ({"causal": 1}, "causal must be true or false, not 1"),
        ({"causal": None}, "causal must be true or false, not none"),
        ({"context": "yes"}, "context must be true or false or none, not yes"),
        ({"rotary_emb_dim": 1}, "rotary_emb_dim must be a whole number of at least 2 or none, not 1"),
        ({"scale_residual_constant": -1}, "scale_residual_constant must be a number of at least 0, not -1"),
        ({"init_gain": -0.5}, "init_gain must be a number above 0 or none, not -0.5"),
        ({"shift_tokens": (1, 0)}, "shift_tokens must be a whole number of at least 0, not (1, 0)"),
    ],
)
def test_a_keyword_out_of_range_is_refused_in_words(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve("a f", **({"dim": 8} | keywords))
    assert str(caught.value) == message


def test_a_stack_needs_a_width() -> None:
    with pytest.raises(UserError) as caught:
        resolve("a f")
    assert str(caught.value) == "a stack needs dim: give dim=512, or write set dim=512; in the pattern"


# Settings that clash -----------------------------------------------------------------------------------------------

CLASHES: list[tuple[str, dict[str, Any], str]] = [
    # from keywords alone: nothing in the text is at fault
    (
        "a f",
        {"ff_swish": True, "ff_relu_squared": True},
        "swish and relu_squared are both set; a feedforward has one activation",
    ),
    ("a", {"heads": 3, "attn_dim_head": None}, "heads=3 does not divide dim=8, which dim_head=none asks for"),
    ("f", {"rotary_pos_emb": True}, "rotary_pos_emb is set, but no block of the pattern uses rotary positions"),
    ("c f", {"rotary_pos_emb": True}, "rotary_pos_emb is set, but no block of the pattern uses rotary positions"),
    ("a", {"rotary_emb_dim": 4}, "rotary_emb_dim is set, but it needs rotary_pos_emb"),
    ("a f", {"context": True}, "context is set, but no block of the pattern attends to a context"),
    ("a", {"num_tokens": 4}, "num_tokens is set, but it needs max_seq_len too, or max_seq_len=0 for any length"),
    ("a", {"max_seq_len": 4}, "max_seq_len is set, but it needs num_tokens, which gives the stack its embedding"),
    (
        "a",
        {"tie_embedding": True},
        "tie_embedding is set, but it needs num_tokens, which gives the stack its embedding",
    ),
    (
        "a",
        {"use_abs_pos_emb": False},
        "use_abs_pos_emb is set, but it needs num_tokens, which gives the stack its embedding",
    ),
    (
        "set scaled_sinu_pos_emb; a",
        {"num_tokens": 4, "max_seq_len": 4, "use_abs_pos_emb": False},
        """
        1:5: scaled_sinu_pos_emb is set, but use_abs_pos_emb=false turns absolute positions off
          set scaled_sinu_pos_emb; a
              ^^^^^^^^^^^^^^^^^^^
        """,
    ),
    ("a", {"emb_dropout": 0.5}, "emb_dropout is set, but it needs num_tokens, which gives the stack its embedding"),
    (
        "a f",
        {"use_rmsnorm": True, "use_scalenorm": True},
        "use_rmsnorm and use_scalenorm are both set; give one",
    ),
    ("a f", {"sandwich_norm": True, "pre_norm": False}, "sandwich_norm is set, but it needs pre_norm"),
    (
        "a f",
        {"deepnorm": True, "pre_norm": True},
        "pre_norm is set, but deepnorm is a post-norm configuration",
    ),
    (
        "a f",
        {"deepnorm": True, "sandwich_norm": True},
        "sandwich_norm is set, but deepnorm is a post-norm configuration",
    ),
    # from the text, by `set` or in a block: it is shown
    (
        "set use_rmsnorm; a f(use_scalenorm)",
        {},
        """
        1:20: use_rmsnorm and use_scalenorm are both set; give one
          set use_rmsnorm; a f(use_scalenorm)
                             ^^^^^^^^^^^^^^^^
        """,
    ),
    (
        # the output's norm is the stack's, whatever the blocks say
        "set use_rmsnorm, use_scalenorm; a(use_rmsnorm=false)",
        {},
        """
        1:18: use_rmsnorm and use_scalenorm are both set; give one
          set use_rmsnorm, use_scalenorm; a(use_rmsnorm=false)
                           ^^^^^^^^^^^^^
        """,
    ),
    (
        "set use_rmsnorm; a f",
        {"use_scalenorm": True},
        """
        1:5: use_rmsnorm and use_scalenorm are both set; give one
          set use_rmsnorm; a f
              ^^^^^^^^^^^
        """,
    ),
    (
        "a f(pre_norm=false)",
        {"sandwich_norm": True},
        """
        1:3: sandwich_norm is set, but it needs pre_norm
          a f(pre_norm=false)
            ^^^^^^^^^^^^^^^^^
        """,
    ),
    (
        "set deepnorm, pre_norm; a f",
        {},
        """
        1:15: pre_norm is set, but deepnorm is a post-norm configuration
          set deepnorm, pre_norm; a f
                        ^^^^^^^^
        """,
    ),
    (
        "set deepnorm; a f",
        {"sandwich_norm": True},
        """
        1:5: sandwich_norm is set, but deepnorm is a post-norm configuration
          set deepnorm; a f
              ^^^^^^^^
        """,
    ),
    (
        "a f(pre_norm)",
        {"deepnorm": True},
        """
        1:3: pre_norm is set, but deepnorm is a post-norm configuration
          a f(pre_norm)
            ^^^^^^^^^^^
        """,
    ),
    (
        "a(sandwich_norm) f",
        {"deepnorm": True},
        """
        1:1: sandwich_norm is set, but deepnorm is a post-norm configuration
          a(sandwich_norm) f
          ^^^^^^^^^^^^^^^^
        """,
    ),
    (
        "set ff_swish, ff_relu_squared; a f",
        {},
        """
        1:15: swish and relu_squared are both set; a feedforward has one activation
          set ff_swish, ff_relu_squared; a f
                        ^^^^^^^^^^^^^^^
        """,
    ),
    (
        "a f(swish)",
        {"ff_relu_squared": True},
        """
        1:3: swish and relu_squared are both set; a feedforward has one activation
          a f(swish)
            ^^^^^^^^
        """,
    ),
    (
        "f f(mult=0.01)",
        {},
        """
        1:3: mult=0.01 of dim=8 leaves no hidden features
          f f(mult=0.01)
            ^^^^^^^^^^^^
        """,
    ),
    (
        "set heads=3; a(dim_head=none)",
        {},
        """
        1:14: heads=3 does not divide dim=8, which dim_head=none asks for
          set heads=3; a(dim_head=none)
                       ^^^^^^^^^^^^^^^^
        """,
    ),
    (
        "set rotary_pos_emb; f",
        {},
        """
        1:5: rotary_pos_emb is set, but no block of the pattern uses rotary positions
          set rotary_pos_emb; f
              ^^^^^^^^^^^^^^
        """,
    ),
    (
        "set context; a f",
        {},
        """
        1:5: context is set, but no block of the pattern attends to a context
          set context; a f
              ^^^^^^^
        """,
    ),
    (
        "set num_tokens=4; a",
        {},
        """
        1:5: num_tokens is set, but it needs max_seq_len too, or max_seq_len=0 for any length
          set num_tokens=4; a
              ^^^^^^^^^^^^
        """,
    ),
    (
        "a\n c f".replace("\\\n", "\n"),
        {"context": False},
        """
        2:2: 'c' (cross-attention) without a context to attend to
           c f
           ^
          context=false says that the stack is given none
        """,
    ),
    (
        "set context=false; a & c",
        {},
        """
        1:24: 'c' (cross-attention) without a context to attend to
          set context=false; a & c
                                 ^
          context=false says that the stack is given none
        """,
    ),
    (
        "a>>4",
        {},
        """
        1:1: a shift of 4 splits dim=8 into 9 parts
          a>>4
          ^
          each part needs a feature: a wider stack or a smaller shift
        """,
    ),
    (
        "a>>8 f",
        {"causal": True},
        """
        1:1: a shift of 8 splits dim=8 into 9 parts
          a>>8 f
          ^
          each part needs a feature: a wider stack or a smaller shift
        """,
    ),
    (
        "a@x a(heads=4)@x",
        {},
        """
        1:5: the tie 'x' has different options here than before: heads
          a@x a(heads=4)@x
              ^^^^^^^^^^
          tied blocks are the same kind with the same options
        """,
    ),
    (
        "(a f)@x (a f(glu, mult=2))@x",
        {},
        """
        1:12: block 2 of the tie 'x' has different options here than before: glu, mult
          (a f)@x (a f(glu, mult=2))@x
                     ^^^^^^^^^^^^^^
          tied blocks are the same kind with the same options
        """,
    ),
]


@pytest.mark.parametrize(("text", "keywords", "message"), CLASHES)
def test_what_does_not_go_together_is_refused_and_shown_where_the_text_says_it(
    text: str, keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        resolve(text, **({"dim": 8} | keywords))
    assert isinstance(caught.value, PatternError) == message.startswith("\n")
    assert str(caught.value) == dedent(message).strip("\n")


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("a f(relu_squared=false)", {"ff_swish": True}),
        ("a f(swish=false)", {"ff_swish": True, "ff_relu_squared": True}),
        ("f a", {"rotary_pos_emb": True}),
        ("f & (f a)", {"rotary_pos_emb": True, "rotary_emb_dim": 4}),
        ("a c", {"context": True}),
        ("a c", {"context": None}),
        ("a f", {"context": False}),
        ("a>>3", {}),
        ("a>>7", {"causal": True}),
        ("a@x a(heads=8)@x", {}),  # 8 is what the stack sets, too
        ("a@x a(heads=4)@x", {"heads": 4}),
        ("a(heads=3)", {}),  # heads need not divide dim where dim_head is a number
        ("a", {"num_tokens": 4, "max_seq_len": 4, "tie_embedding": True, "emb_dropout": 0.5}),
        ("f", {"heads": 3, "attn_dim_head": None}),  # no block has heads
        ("a f(use_rmsnorm=false, use_scalenorm)", {"use_rmsnorm": True}),
        ("a(pre_norm) f(pre_norm)", {"pre_norm": False, "sandwich_norm": True}),
        ("a(sandwich_norm) f", {"gate_residual": True, "use_scalenorm": True}),
        ("a f(pre_norm=false)", {"deepnorm": True, "pre_norm": False, "gate_residual": True, "sandwich_norm": False}),
    ],
)
def test_what_goes_together_is_taken(text: str, keywords: dict[str, Any]) -> None:
    assert resolve(text, **({"dim": 8} | keywords)).steps


def test_a_keyword_mends_what_set_got_wrong_for_this_stack() -> None:
    assert resolve("set ff_swish, ff_relu_squared; a f", dim=8, ff_swish=False).steps
    assert resolve("set context=false; a c", dim=8, context=None).steps
    assert resolve("set deepnorm, pre_norm; a", dim=8, deepnorm=False).given["pre_norm"] is True


def test_deepnorm_counts_the_blocks_that_run() -> None:
    for text, blocks in (("a", 1), ("(a f)*3", 6), ("a@x & (a@x f) | macaron(2)", 9)):
        assert options(text, "scale_residual_constant", deepnorm=True) == [pytest.approx(blocks**0.25)] * blocks
        assert options(text, "init_gain", deepnorm=True) == [pytest.approx((4 * blocks) ** -0.25)] * blocks
    assert options("set deepnorm; a f(init_gain=1)", "init_gain") == [pytest.approx(8**-0.25), 1]
    assert options("a f", "init_gain", init_gain=0.5) == [0.5, 0.5]


def test_two_settings_at_odds_are_pointed_at_where_they_stand() -> None:
    for text, at in (
        ("set dim=16, attn_kv_heads=3, heads=8; a f(glu)", "heads=8; a f(glu)"),
        ("set dim=16, layer_scale=0.1; set use_adaptive_layerscale; a f", "use_adaptive_layerscale; a f"),
        ("set dim=16, attn_kv_heads=3; a(heads=8) f", "a(heads=8) f"),
        ("set dim=16; f a(heads=4, kv_heads=3)", "a(heads=4, kv_heads=3)"),
    ):
        with pytest.raises(PatternError) as error:
            resolve(text)
        assert text[error.value.column - 1 :] == at
    with pytest.raises(UserError) as plain:
        resolve("a f", dim=16, attn_kv_heads=3)
    assert not isinstance(plain.value, PatternError)


# The table ---------------------------------------------------------------------------------------------------------


def test_every_setting_is_documented_and_no_two_have_one_name() -> None:
    names = [option.name for option in STACK_SETTINGS]
    assert len(set(names)) == len(names)
    assert all(option.doc and "\n" not in option.doc for option in table().values())
    assert set(names) <= table().keys()


def test_every_default_is_a_value_that_may_be_given() -> None:
    for kind in kinds().values():
        for option in kind.all_options():
            assert option.fault(option.default) is None
    for option in STACK_SETTINGS:
        assert option.name == "dim" or option.default is None or option.fault(option.default) is None


@pytest.mark.parametrize("setting", sorted(table()))
def test_every_setting_can_be_written_with_set(setting: str) -> None:
    option = table()[setting]
    usual = {bool: True, int: 4, float: 0.5 if option.fault(0.5) is None else 1.5, str: "x"}[option.type]
    value = option.choices[0] if option.choices else (1.5, 2) if option.many else usual
    written = setting if value is True else f"{setting}={value}"
    assert parse(f"set {written}; a c f").settings == {setting: value}
    assert str(parse(f"set {written}; a")) == f"set {written}; a"
