"""A picture of operations tells every option: what differs in one differs in what is drawn, tooltips apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest

import blockdsl
from blockdsl import Kind, Option
from blockdsl.reference import needs, telling
from blockdsl.registry.kinds import BIDIRECTIONAL, kind_of, kinds
from blockdsl.registry.options import Value, spell
from blockdsl.registry.settings import STACK_SETTINGS

from ..built_in import BUILT_IN

OF_BLOCKS = [(kind, option) for kind in BUILT_IN for option in kind_of(kind).written_options()]
SETTINGS = {option.setting for kind in BUILT_IN for option in kind_of(kind).all_options()}
OF_STACK = [option for option in STACK_SETTINGS if option.name not in SETTINGS or option.name == "causal"]


def values(option: Option) -> list[Value]:
    """The default, every choice, and two more numbers."""
    if option.type is bool:
        return [True, False]
    if option.choices:
        return [*option.choices, *([None] if option.optional else [])]
    told = telling(option)
    out = [option.default, told]
    if isinstance(told, int | float):
        further = (told * 2, told / 2, told + 1) if option.type is float else (told * 2, told + 1, told // 2)
        out += [number for number in further if option.fault(number) is None and number not in out][:1]
    return [value for value in out if option.fault(value) is None]


def visible(graph: blockdsl.BlockGraph) -> str:
    """The picture of a graph as if no text had set an option of its blocks, without what is above it."""
    for node in graph.nodes("block"):
        graph.nx.nodes[node]["given"] = {}
    svg = graph.to_svg(detail="op")
    return re.sub(
        r'<title>.*?</title>|<desc>.*?</desc>| aria-label="[^"]*"|<g class="head">.*?</g>', "", svg, flags=re.S
    )


def given(option: Option, value: Value) -> str:
    return option.name if value is True else f"{option.name}={spell(value)}"


def models(kind: str, option: Option) -> Iterator[tuple[Value, blockdsl.BlockGraph]]:
    """A model for each value that blocks of the kind take: all else is alike."""
    own: dict[str, Any] = {"dim": 512} | (needs(option.setting, option.area) if option.setting else {})
    own |= {"causal": True} if kind_of(kind).causal_only and option is not BIDIRECTIONAL else {}
    for value in values(option):
        block, settings = f"{kind}({given(option, value)})", {}
        if option.setting and option not in kind_of(kind).position_options():
            block, settings = kind, {option.setting: value}
        if option.name == "value_mix":
            block = f"{kind} ^u {kind}(values=u, {given(option, value)})"
        pattern = f"(f & {block})*2" if option.name == "shared_norm" else f"({block} f)*2"
        try:
            yield value, blockdsl.compile(pattern, **{**own, **settings})
        except blockdsl.UserError:  # none without the option that it goes with, and the like
            continue


def same(one: blockdsl.BlockGraph, other: blockdsl.BlockGraph, kind: str) -> bool:
    """Whether they are one model, said in two ways."""
    first, second = (
        [{**vars(graph.completed(node))} for node in graph.nodes("block") if graph.block(node)["kind"] == kind]
        for graph in (one, other)
    )
    said = {"swish", "relu_squared", "one_kv_head", "mult", "expand"}
    return [{**o, **dict.fromkeys(said)} for o in first] == [{**o, **dict.fromkeys(said)} for o in second] and all(
        one.nx.nodes[node] == other.nx.nodes[node] for node in one.nodes("position")
    )


@pytest.mark.parametrize(("kind", "option"), OF_BLOCKS, ids=lambda x: getattr(x, "name", x))
def test_an_option_of_a_block_is_an_operation_or_a_mark(kind: str, option: Option) -> None:
    if option.reads:
        source = kind if option.reads in kind_of(kind).gives else "a"
        own = {"dim": 512, "causal": kind_of(kind).causal_only}
        read = blockdsl.compile(f"(f {source} ^u f {kind}({option.name}=u) f)", **own)
        assert visible(read) != visible(blockdsl.compile(f"(f {source} f {kind} f)", **own))
        return
    drawn = [(value, graph, visible(graph)) for value, graph in models(kind, option)]
    rotary = option in kind_of(kind).position_options()  # which only attention to the own sequence has from the stack
    assert len(drawn) > 1 or option is BIDIRECTIONAL or rotary
    for (value, graph, picture), (other, second, beside) in combinations(drawn, 2):
        assert picture != beside or same(graph, second, kind), (value, other)


@pytest.mark.parametrize("option", OF_STACK, ids=lambda option: option.name)
def test_a_setting_of_the_stack_is_drawn(option: Option) -> None:
    pattern = "(a c f)*2" if option.name == "context" else "(a f)*2"
    drawn = {}
    for value in values(option):
        try:
            graph = blockdsl.compile(pattern, **{"dim": 512, **needs(option.name, option.area), option.name: value})
        except blockdsl.UserError:
            continue
        drawn[value] = visible(graph)
    if option.name == "alibi_num_heads":  # none is all of the eight
        drawn.pop(None)
    if option.name == "context":  # false is refused where a block reads one
        drawn = {True: drawn[True], False: visible(blockdsl.compile("(a f)*2", dim=512))}
    for value, other in combinations(drawn, 2):
        assert drawn[value] != drawn[other], (value, other)
    assert drawn


def test_so_is_an_option_of_a_kind_of_ones_own() -> None:
    """Which says nothing of its operations."""
    options = (Option("kernel", int, 7, "width"), Option("ends", str, "same", "", choices=("same", "valid")))
    blockdsl.register(Kind("dwconv", "convolution", options, shapes=lambda o: {}, flops=lambda o, s: 0, module="x:X"))
    try:
        for option in options:
            pictures = [visible(graph) for _, graph in models("dwconv", option)]
            assert len({*pictures}) == len(pictures) > 1
        assert "dwconv" in kinds()
    finally:
        blockdsl.unregister("dwconv")
