"""The registry: kinds of one's own in patterns and settings, and what cannot be registered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import blockdsl
from blockdsl import Kind, Option, Pattern, PatternError, UserError, kinds, parse, register, unregister
from blockdsl.graph.resolve import ResolvedBlock, resolve
from blockdsl.registry.builtin import FEEDFORWARD
from blockdsl.registry.kinds import INPUTS
from blockdsl.registry.options import spell
from blockdsl.registry.settings import table

from ..built_in import BUILT_IN, HAVE_KERNEL

WITH_CONV = ", ".join(sorted((*BUILT_IN, "dwconv")))


def kind(name: str = "dwconv", options: tuple[Option, ...] = (), **fields: Any) -> Kind:
    """A kind that computes nothing; the language never builds its module."""
    given: dict[str, Any] = {"title": "depthwise convolution", "prefix": "dwconv", **fields}
    return Kind(name, options=options, shapes=lambda o: {}, flops=lambda o, sizes: 0, module="nowhere:Conv", **given)


KERNEL = Option("kernel", int, 7, "width of the kernel", setting="dwconv_kernel", least=1, most=99)
MODE = Option("mode", str, "same", "what is done at the ends", choices=("same", "valid"))
SHIFTED = Option("offset", float, 0.0, "of the kernel", least=-1.5, most=1.5)
FOLLOWS = Option("causal", bool, False, "no token sees a later one", setting="causal")


@pytest.fixture
def dwconv() -> Iterator[Kind]:
    yield register(kind(options=(KERNEL, MODE, SHIFTED, FOLLOWS), also=("convolution", "sepconv")))
    unregister("dwconv")


def resolved(text: str, **keywords: Any) -> list[dict[str, Any]]:
    steps = resolve(text, dim=8, **keywords).steps
    return [step.options for step in steps if isinstance(step, ResolvedBlock)]


# In patterns and settings ------------------------------------------------------------------------------------------


def test_a_registered_kind_is_written_like_the_built_in_ones(dwconv: Kind) -> None:
    pattern = parse("x = f/2 a dwconv>>1@t f/2; x*2 | dwconv(kernel=5) & f")
    assert pattern.layer_types == (*("f", "a", "dwconv", "f") * 2, "dwconv", "f")
    assert parse(str(pattern)) == pattern
    assert str(Pattern.from_layers(["a", "dwconv", "a", "dwconv"])) == "(a dwconv)*2"


def test_its_options_stand_in_declaration_order_with_those_of_every_block_last(dwconv: Kind) -> None:
    text = "dwconv(layer_dropout=0.5, causal, mode=valid, pre_norm=false, offset=-0.5, kernel=3)"
    canonical = "dwconv(kernel=3, mode=valid, offset=-0.5, causal, pre_norm=false, layer_dropout=0.5)"
    assert str(parse(text)) == canonical


def test_its_settings_are_settings_of_the_stack(dwconv: Kind) -> None:
    assert table()["dwconv_kernel"] is KERNEL
    assert [o["kernel"] for o in resolved("dwconv dwconv(kernel=3)", dwconv_kernel=5)] == [5, 3]
    assert [o["kernel"] for o in resolved("set dwconv_kernel=9; dwconv")] == [9]
    assert [o["causal"] for o in resolved("a dwconv dwconv(causal=false)", causal=True)] == [True, True, False]
    assert [o["mode"] for o in resolved("dwconv dwconv(mode=valid)")] == ["same", "valid"]
    assert str(parse("set dwconv_kernel=9, dim=8; dwconv")) == "set dim=8, dwconv_kernel=9; dwconv"


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        (
            "dwconv(kernel=0)",
            "kernel must be a whole number from 1 to 99, not 0",
            "kernel: width of the kernel",
        ),
        ("dwconv(kernel=100)", "kernel must be a whole number from 1 to 99, not 100", "kernel: width of the kernel"),
        ("dwconv(mode=full)", "mode must be one of 'same', 'valid', not full", "mode: what is done at the ends"),
        ("dwconv(mode)", "mode must be one of 'same', 'valid', not true", "mode: what is done at the ends"),
        ("dwconv(offset=-2)", "offset must be a number from -1.5 to 1.5, not -2", "offset: of the kernel"),
        ("dwconv(valid)", "'dwconv' (depthwise convolution) has no option 'valid'", None),
        (
            "dwconv(dwconv_kernel=3)",
            "'dwconv' (depthwise convolution) has no option 'dwconv_kernel'",
            "did you mean 'kernel'? inside a block the prefix is left out",
        ),
        (
            "a(kernel=3)",
            "'a' (self-attention) has no option 'kernel'",
            f"'kernel' is an option of {HAVE_KERNEL}'dwconv' (depthwise convolution)",
        ),
        ("dwconv(3)", "an option needs a name", "as in kernel=3"),
        (
            "sepconv",
            "unknown block 'sepconv'",
            f"did you mean 'dwconv' (depthwise convolution)?\nkinds: {WITH_CONV}; macros: macaron, par, sandwich",
        ),
        ("dwconv = a; dwconv", "'dwconv' is a block kind and cannot be defined", "choose another name"),
        ("dwconv@x a@x", "the tie 'x' is 'a' here and 'dwconv' before", None),
        (
            "dwconv2",
            "unknown block 'dwconv2'",
            f"a count goes after '*': dwconv*2\nkinds: {WITH_CONV}; macros: macaron, par, sandwich",
        ),
        ("set dwconv_kernel=0; a", "dwconv_kernel must be a whole number from 1 to 99, not 0", None),
        ("set dwconv_kernl=3; a", "unknown setting 'dwconv_kernl'", "did you mean 'dwconv_kernel'?"),
    ],
)
def test_errors_speak_of_it_as_of_the_built_in_ones(dwconv: Kind, text: str, problem: str, hint: str | None) -> None:
    with pytest.raises(PatternError) as caught:
        parse(text)
    assert caught.value.problem == problem
    assert hint is None or caught.value.hint == hint


def test_what_its_check_says_is_an_error_at_the_block() -> None:
    odd = kind(options=(KERNEL,), check=lambda o: None if o.kernel % 2 else f"kernel={o.kernel} is even in dim={o.dim}")
    register(odd)
    try:
        with pytest.raises(PatternError) as caught:
            resolve("a dwconv(kernel=4)", dim=8)
        assert (caught.value.problem, caught.value.column) == ("kernel=4 is even in dim=8", 3)
        with pytest.raises(UserError, match=r"^kernel=6 is even in dim=8$"):
            resolve("a dwconv", dim=8, dwconv_kernel=6)
        assert resolve("a dwconv", dim=8).steps
    finally:
        unregister("dwconv")


def test_a_kind_that_is_unregistered_is_unknown_again_and_old_patterns_say_so() -> None:
    register(kind(options=(KERNEL,)))
    pattern = parse("a dwconv")
    unregister("dwconv")
    assert "dwconv" not in kinds()
    assert "dwconv_kernel" not in table()
    with pytest.raises(PatternError, match=r"unknown block .dwconv."):
        parse("a dwconv")
    with pytest.raises(PatternError, match=r"unknown block .dwconv."):
        resolve(pattern, dim=8)
    unregister("dwconv")  # once more does nothing


# What cannot be registered -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a", "f", "macaron", "par", "set", "true", "none", "input", "sum", "output", "context"]
)
def test_a_name_that_is_taken_is_refused(name: str) -> None:
    with pytest.raises(UserError) as caught:
        register(kind(name))
    assert str(caught.value) == f"a block kind cannot be called '{name}': it is taken"


@pytest.mark.parametrize("name", ["", "2d", "x y", "dwconv-1", "dwconv2", "ü", "a.b", "f("])
def test_a_name_that_no_pattern_can_write_is_refused(name: str) -> None:
    with pytest.raises(UserError) as caught:
        register(kind(name))
    assert str(caught.value) == (
        f"a block kind cannot be called '{name}': write letters and '_', with no digit at the end"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"options": (KERNEL, KERNEL)}, "options are named twice: kernel"),
        ({"options": (Option("pre_norm", bool, True, "x"),)}, "options are named twice: pre_norm"),
        ({"options": (Option("dim", int, 3, "x"),)}, "an option cannot be called 'dim': the module is given it anyway"),
        (
            {"options": (Option("k-size", int, 3, "x"),)},
            "an option cannot be called 'k-size': write letters, digits and '_'",
        ),
        ({"options": (Option("", int, 3, "x"),)}, "an option cannot be called '': write letters, digits and '_'"),
        (
            {"options": (Option("sizes", list, [], "x"),)},  # type: ignore[arg-type]
            "the type of option 'sizes' must be bool, int, float or str",
        ),
        (
            {"options": (Option("k", int, 0, "x", least=1),)},
            "the default of option 'k' must be a whole number of at least 1, not 0",
        ),
        ({"options": (Option("k", int, None, "x"),)}, "the default of option 'k' must be a whole number, not none"),
        ({"options": (Option("k", int, 3, "x", setting="ff_mult"),)}, "the settings ff_mult are taken"),
        ({"options": (Option("k", int, 3, "x", setting="dim"),)}, "the settings dim are taken"),
        (
            {"inputs": ("mask", "wrong")},
            "unknown inputs wrong; the inputs are mask, attend, context, rotary, context_rotary, bias, scores, memory, cache, observed, value_embed",
        ),
        ({"inputs": ("rotary",)}, "the input rotary needs the option dim_head"),
    ],
)
def test_a_declaration_that_could_not_work_is_refused_and_nothing_is_registered(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        register(kind(**fields))
    assert str(caught.value) == f"kind 'dwconv': {message}"
    assert list(kinds()) == [*BUILT_IN]


def test_a_kind_is_registered_once_and_the_built_in_ones_stay(dwconv: Kind) -> None:
    with pytest.raises(UserError, match=r"^a block kind cannot be called 'dwconv': it is taken$"):
        register(kind())
    for name in BUILT_IN:
        with pytest.raises(UserError, match=f"^'{name}' is built in$"):
            unregister(name)


def test_what_kinds_gives_is_a_copy() -> None:
    kinds().clear()
    assert [*kinds()] == [*BUILT_IN]
    assert kinds()["f"] is FEEDFORWARD


def test_the_built_in_kinds_are_declared_as_a_user_would_declare_them() -> None:
    for built_in in kinds().values():
        assert built_in.title
        assert set(built_in.inputs) <= set(INPUTS)
        assert all(option.doc for option in built_in.all_options())
        assert {option.name for option in built_in.all_options()} >= {
            *("pre_norm", "norm", "sandwich_norm", "output_norm", "shared_norm", "use_rmsnorm", "use_scalenorm"),
            *("norm_eps", "norm_bias", "norm_gain", "norm_unit_offset", "layer_scale", "layer_dropout"),
            *("scale_residual", "scale_residual_constant", "branch_scale", "gate_residual", "init_gain", "checkpoint"),
        }
    assert blockdsl.kinds is kinds


# Options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "good", "bad"),
    [
        (Option("x", bool, True, ""), [True, False], [None, 0, 1, 1.0, "true", ()]),
        (Option("x", int, 1, ""), [0, -5, 10**17], [None, True, 1.0, "1", 10**18, (1,)]),
        (Option("x", int, 1, "", least=1, most=3), [1, 3], [0, 4]),
        (Option("x", float, 1, ""), [0, 0.5, -2.5], [None, False, "1", float("nan"), float("inf"), -float("inf")]),
        (Option("x", float, 0, "", least=0, below=1), [0, 0.0, 0.999], [1, 1.0, -1e-9]),
        (Option("x", float, 1, "", above=0), [1e-9, 1, 2.5], [0, 0.0, -1]),
        (Option("x", str, "a", ""), ["a", "anything"], [None, 1, True]),
        (Option("x", str, "a", "", choices=("a", "b")), ["a", "b"], ["c", "", None]),
        (Option("x", int, None, "", least=2, optional=True), [None, 2], [1, "none"]),
    ],
)
def test_an_option_takes_what_it_declares(option: Option, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if option.fault(value) is not None] == []
    assert [value for value in bad if option.fault(value) is None] == []


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        (Option("x", bool, True, ""), "true or false"),
        (Option("x", int, 1, ""), "a whole number"),
        (Option("x", int, 1, "", least=1), "a whole number of at least 1"),
        (Option("x", int, 1, "", most=9), "a whole number of at most 9"),
        (Option("x", float, 1, "", least=0.5, most=9), "a number from 0.5 to 9"),
        (Option("x", float, 1, "", least=0, below=1), "a number of at least 0 and below 1"),
        (Option("x", float, 1, "", above=0), "a number above 0"),
        (Option("x", int, 2, "", above=1, below=4, optional=True), "a whole number above 1 and below 4 or none"),
        (Option("x", str, "a", "", choices=("a", "b")), "one of 'a', 'b'"),
        (Option("x", str, "a", "", choices=("a", "b"), optional=True), "one of 'a', 'b' or none"),
    ],
)
def test_an_option_says_in_words_what_it_takes(option: Option, wanted: str) -> None:
    assert option.wanted() == wanted


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (None, "none"),
        (3, "3"),
        (0.5, "0.5"),
        (1e-9, "1e-09"),
        ("x", "x"),
        ((1, (True,)), "(1, (true))"),
    ],
)
def test_a_value_is_spelt_as_the_language_writes_it(value: Any, text: str) -> None:
    assert spell(value) == text
