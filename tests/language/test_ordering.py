"""The keyword API's ordering options, against x-transformers' rules written out here a second time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockdsl import PatternError, UserError, parse
from blockdsl.language.ordering import pattern_of

from ..built_in import BUILT_IN


def par_rule(depth: int, ratio: int, block: list[str]) -> list[str] | None:
    """The PAR ordering as its paper's reference has it, or None where the ratio does not fit."""
    total = depth * len(block)
    if not 1 < ratio <= total:
        return None
    attentions = [kind for kind in block if kind != "f"]
    groups = total // ratio
    cut = total * 2 // 3
    width = (cut + cut // groups) // groups
    if len(attentions) > width:
        return None
    head: list[str] = []
    for _ in range(groups):
        head += attentions
        head += ["f"] * (width - len(attentions))
    while len(head) < total:
        head.append("f")
    return head


def default_block(cross_attend: bool, only_cross: bool, macaron: bool) -> list[str]:
    block = ["c", "f"] if only_cross else ["a", "c", "f"] if cross_attend else ["a", "f"]
    return ["f", *block] if macaron else block


def blocks(**options: Any) -> list[tuple[str, float, int | None, Any]]:
    blocks = pattern_of(**options).expansion.blocks()
    return [(block.kind, block.scale, block.shift, block.given.get("layer_dropout")) for block in blocks]


def expected(kinds: list[str], macaron: bool, shifts: list[int] | None, dropouts: list[float] | None) -> list[Any]:
    return [
        (
            kind,
            0.5 if macaron and kind == "f" else 1,
            None if shifts is None else shifts[i],
            None if dropouts is None else dropouts[i],
        )
        for i, kind in enumerate(kinds)
    ]


@st.composite
def orderings(draw: st.DrawFn) -> dict[str, Any]:
    cross = draw(st.booleans())
    out: dict[str, Any] = {
        "depth": draw(st.integers(1, 12)),
        "cross_attend": cross,
        "only_cross": cross and draw(st.booleans()),
        "macaron": draw(st.booleans()),
    }
    way = draw(st.sampled_from(["", "sandwich_coef", "par_ratio", "custom_layers"]))
    if way == "sandwich_coef":
        out[way] = draw(st.integers(1, out["depth"]))
    if way == "par_ratio":
        out[way] = draw(st.integers(2, 20))
    if way == "custom_layers":
        out[way] = draw(st.lists(st.sampled_from("acf"), min_size=1, max_size=20))
        out["cross_attend"] = "c" in out[way] and cross
        out["only_cross"] = out["cross_attend"] and "a" not in out[way]
        out["macaron"] = "f" in out[way] and out["macaron"]
    return out


def kinds_of(options: dict[str, Any]) -> list[str] | None:
    block = default_block(options["cross_attend"], options["only_cross"], options["macaron"])
    depth = options["depth"]
    if "custom_layers" in options:
        return list(options["custom_layers"])
    if "par_ratio" in options:
        return par_rule(depth, options["par_ratio"], block)
    if "sandwich_coef" in options:
        k = options["sandwich_coef"]
        return ["a"] * k + block * (depth - k) + ["f"] * k
    return block * depth


@settings(max_examples=150)
@given(orderings(), st.data())
def test_the_blocks_are_those_that_the_rules_give(options: dict[str, Any], data: st.DataObject) -> None:
    kinds = kinds_of(options)
    if kinds is None:
        with pytest.raises(UserError, match=f"^par_ratio={options['par_ratio']}: the ratio"):
            pattern_of(**options)
        return
    if options["cross_attend"] and "c" not in kinds:
        with pytest.raises(UserError, match=r"cross_attend is set, but sandwich_coef=.* makes no block with a 'c'"):
            pattern_of(**options)
        return
    each: dict[str, Any] = {"shift_tokens": None, "layer_dropout": None}
    if data.draw(st.booleans()):
        each["shift_tokens"] = data.draw(st.lists(st.integers(0, 2), min_size=len(kinds), max_size=len(kinds)))
    if data.draw(st.booleans()):
        shares = st.sampled_from([0, 0.1, 0.25])
        each["layer_dropout"] = data.draw(st.lists(shares, min_size=len(kinds), max_size=len(kinds)))
    assert blocks(**options, **each) == expected(kinds, options["macaron"], *each.values())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"depth": 6}, "(a f)*6"),
        ({"depth": 1}, "a f"),
        ({"depth": 6, "cross_attend": True}, "(a c f)*6"),
        ({"depth": 6, "cross_attend": True, "only_cross": True}, "(c f)*6"),
        ({"depth": 3, "macaron": True}, "(f/2 a f/2)*3"),
        ({"depth": 3, "macaron": True, "cross_attend": True}, "(f/2 a c f/2)*3"),
        ({"depth": 6, "sandwich_coef": 2}, "sandwich(2, 6)"),
        ({"depth": 6, "sandwich_coef": 2, "cross_attend": True}, "a a (a c f)*4 f f"),
        ({"depth": 6, "par_ratio": 4}, "par(6, 4)"),
        ({"custom_layers": ("a", "f", "a", "f")}, "(a f)*2"),
        ({"depth": 9, "custom_layers": ["a", "c", "f"]}, "a c f"),  # x-transformers asks for a depth, and reads none
        ({"custom_layers": ["a", "c", "f"], "cross_attend": True, "macaron": True}, "a c f/2"),
        ({"depth": 2, "shift_tokens": (1, 0, 1, 0)}, "(a>>1 f>>0)*2"),
        ({"depth": 1, "macaron": True, "shift_tokens": (0, 1, 2)}, "f>>0/2 a>>1 f>>2/2"),
        ({"depth": 1, "layer_dropout": (0.1, 0)}, "a(layer_dropout=0.1) f(layer_dropout=0)"),
        ({"depth": 6, "unet_skips": True}, "(^u a f)*3 (<u(pop, cat) a f)*3"),
        ({"depth": 3, "unet_skips": True, "cross_attend": True}, "^u (a c f)*2 <u(pop, cat) a c f"),
        ({"depth": 3, "add_value_residual": True}, "a ^v f (a(values=v, value_mix=learned) f)*2"),
        (
            {"custom_layers": "faa", "add_value_residual": True, "learned_value_residual_mix": False},
            "f a ^v a(values=v)",
        ),
        (
            {
                "depth": 2,
                "unet_skips": True,
                "add_value_residual": True,
                "macaron": True,
                "shift_tokens": (0, 1, 2) * 2,
            },
            "^u f>>0/2 a>>1 ^v f>>2/2 <u(pop, cat) f>>0/2 a(values=v, value_mix=learned)>>1 f>>2/2",
        ),
    ],
)
def test_the_pattern_is_the_text_a_person_would_write(options: dict[str, Any], text: str) -> None:
    pattern = pattern_of(**options)
    assert str(pattern) == text
    assert pattern == parse(text)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, TypeError, "give depth=, or the whole order as pattern="),
        ({"depth": 0}, UserError, "depth must be a whole number of at least 1, not 0"),
        ({"depth": 2.0}, UserError, "depth must be a whole number of at least 1, not 2.0"),
        ({"depth": True}, UserError, "depth must be a whole number of at least 1, not true"),
        ({"depth": "6"}, UserError, "depth must be a whole number of at least 1, not '6'"),
        ({"depth": 6, "sandwich_coef": 0}, UserError, "sandwich_coef must be a whole number of at least 1, not 0"),
        ({"depth": 6, "sandwich_coef": 1.5}, UserError, "sandwich_coef must be a whole number of at least 1, not 1.5"),
        ({"depth": 6, "sandwich_coef": 7}, UserError, "sandwich_coef must be from 1 to the depth, 6, not 7"),
        ({"depth": 6, "par_ratio": "4"}, UserError, "par_ratio must be a whole number of at least 1, not '4'"),
        (
            {"depth": 6, "par_ratio": 1},
            UserError,
            "par_ratio=1: the ratio must be from 2 to 12, the number of blocks at depth 6, not 1",
        ),
        (
            {"depth": 6, "par_ratio": 13},
            UserError,
            "par_ratio=13: the ratio must be from 2 to 12, the number of blocks at depth 6, not 13",
        ),
        (
            {"depth": 6, "par_ratio": 2, "cross_attend": True},
            UserError,
            "par_ratio=2: the ratio 2 at depth 6 leaves no space for 'a c' in a group",
        ),
        (
            {"depth": 6, "par_ratio": 4, "sandwich_coef": 2},
            TypeError,
            "par_ratio and sandwich_coef each decide the order of the blocks; give one",
        ),
        (
            {"depth": 6, "custom_layers": ["a"], "sandwich_coef": 2},
            TypeError,
            "custom_layers and sandwich_coef each decide the order of the blocks; give one",
        ),
        *(
            (
                {"depth": 2, "sandwich_coef": 2, "cross_attend": True, **more},
                UserError,
                "cross_attend is set, but sandwich_coef=2 at depth=2 makes no block with a 'c': "
                "take a larger depth or a smaller sandwich_coef",
            )
            for more in ({}, {"only_cross": True}, {"macaron": True}, {"shift_tokens": (1, 0, 1, 0)})
        ),
        ({"depth": 6, "only_cross": True}, TypeError, "only_cross needs cross_attend=True"),
        (
            {"depth": 1, "unet_skips": True},
            UserError,
            "unet_skips joins the first half of the stack to the second: depth is at least 2",
        ),
        (
            {"depth": 4, "unet_skips": True, "par_ratio": 2},
            TypeError,
            "unet_skips joins repeats of the default block, and par_ratio has none",
        ),
        (
            {"depth": 1, "add_value_residual": True},
            UserError,
            "add_value_residual is set, but there is no second attention to read the first's values",
        ),
        (
            {"depth": 2, "learned_value_residual_mix": True},
            TypeError,
            "learned_value_residual_mix needs add_value_residual=True",
        ),
        (
            {"custom_layers": ["a", "x"]},
            UserError,
            f"custom_layers is a list of block kinds ({', '.join(BUILT_IN)}), not ['a', 'x']",
        ),
        ({"depth": 0, "custom_layers": ["a"]}, UserError, "depth must be a whole number of at least 1, not 0"),
        (
            {"custom_layers": ["a", "f"], "cross_attend": True},
            UserError,
            "cross_attend is set, but custom_layers has no 'c'",
        ),
        (
            {"custom_layers": ["a", "c"], "cross_attend": True, "only_cross": True},
            UserError,
            "only_cross is set, but custom_layers has an 'a'",
        ),
        (
            {"custom_layers": ["a", "a"], "macaron": True},
            UserError,
            "macaron is set, but custom_layers has no 'f' to make a half step",
        ),
        ({"custom_layers": []}, UserError, f"custom_layers is a list of block kinds ({', '.join(BUILT_IN)}), not []"),
        ({"depth": 6, "shift_tokens": (1, 0)}, UserError, "shift_tokens has 2 values for 12 blocks"),
        ({"depth": 1, "layer_dropout": (0, 0, 0)}, UserError, "layer_dropout has 3 values for 2 blocks"),
        ({"depth": 5001}, UserError, "depth=5001 makes 10,002 blocks; the limit is 10,000"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        pattern_of(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"depth": 1, "shift_tokens": (1, -1)}, "a shift must be a whole number of at least 0, not -1"),
        ({"depth": 1, "shift_tokens": (1, 0.5)}, "a shift must be a whole number of at least 0, not 0.5"),
        ({"depth": 1, "layer_dropout": (0, 1.5)}, "layer_dropout must be a number of at least 0 and below 1, not 1.5"),
        (
            {"depth": 1, "layer_dropout": (0, True)},
            "layer_dropout must be a number of at least 0 and below 1, not True",
        ),
    ],
)
def test_a_wrong_value_for_one_block_is_shown_in_the_text_that_the_options_make(
    options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(PatternError) as caught:
        pattern_of(**options)
    assert caught.value.problem == problem
