"""What an edited graph says of its text: the text it has now, or what it was edited from, wherever it is shown."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import networkx as nx
import numpy as np
import pytest

import blockdsl
import xt_blocks
from blockdsl import BlockGraph
from blockdsl.graph.written import is_edited

SIZES = {"dim": 16, "heads": 2}


def graph(pattern: str = "(a f)*3", **settings: object) -> BlockGraph:
    return blockdsl.compile(pattern, **SIZES, **settings)


def forked() -> BlockGraph:
    """A graph without a text: its stream forks and meets again."""
    g = graph()
    g.nx.remove_edge("f1", "a2")
    g.nx.add_edge("a0", "a2")
    g.nx.add_edge("f1", "a4")
    return g


def test_an_untouched_graph_has_the_text_it_was_made_from() -> None:
    for text in ("(a f)*3", "x = a f; x | sandwich(2, 3)", "set causal; a & f", "(a f)*2 => (a c f)*2"):
        g = graph(text)
        same = [g, g.copy(), deepcopy(g), pickle.loads(pickle.dumps(g)), BlockGraph.from_json(g.to_json())]
        assert {each.pattern for each in same} == {text}


def test_an_edit_gives_the_text_that_the_graph_then_has() -> None:
    g = graph()
    g.nx.nodes["f1"]["options"]["glu"] = True
    assert g.pattern == "set dim=16, heads=2; a f(glu) a f a f"
    assert blockdsl.compile(g.pattern) == g
    g.nx.nodes["f1"]["options"]["glu"] = False
    assert g.pattern == "(a f)*3", "the edit was taken back"


@pytest.mark.parametrize("around", [{}, {"num_tokens": 8, "max_seq_len": 4}, {"image_size": 4, "patch_size": 2}])
def test_an_edit_shows_through_models_and_copies(around: dict[str, int]) -> None:
    g = graph()
    g.nx.nodes["f1"]["options"]["glu"] = True
    model = g.with_tokens(8, 4) if "num_tokens" in around else g.with_images(4, 2) if around else g.copy()
    assert "f(glu)" in model.pattern
    assert model.stack_alone().pattern == g.pattern
    plain = graph().with_tokens(8, 4) if "num_tokens" in around else graph().with_images(4, 2) if around else graph()
    assert plain.pattern == plain.stack_alone().pattern == "(a f)*3"


def test_a_graph_without_a_text_says_what_it_was_edited_from() -> None:
    g = forked()
    assert g.pattern == "edited from (a f)*3"
    assert repr(g) == "BlockGraph(edited from '(a f)*3', dim=16, blocks=6)"
    assert g.pattern == g.copy().pattern == g.with_tokens(8, 4).pattern == xt_blocks.lower(g).pattern
    again = BlockGraph.from_json(g.to_json())
    assert json.loads(g.to_json())["graph"]["pattern"] == again.pattern == BlockGraph.from_json(again.to_json()).pattern
    assert again.to_json() == g.to_json()
    again.nx.remove_edge("a0", "a2")
    again.nx.add_edge("f1", "a2")
    again.nx.remove_edge("f1", "a4")
    assert again.pattern == "set dim=16, heads=2; (a f)*3"


def test_every_place_that_shows_a_text_shows_the_new_one() -> None:
    g = graph()
    g.nx.add_edge("f1", "a4")
    text = "set dim=16, heads=2; a f ^u a f <u a f"
    lowered = xt_blocks.lower(g)
    said = [
        g.pattern,
        lowered.pattern,
        lowered.graph.pattern,
        json.loads(g.to_json())["graph"]["pattern"],
        BlockGraph.from_json(g.to_json()).pattern,
        xt_blocks.lower(g.with_tokens(8, 4)).pattern.replace("num_tokens=8, max_seq_len=4, ", ""),
    ]
    assert {*said} == {text}
    assert repr(g) == f"BlockGraph({text!r}, dim=16, blocks=6)"


def test_two_streams_each_have_their_own_text() -> None:
    g = graph("(a f)*2 => (a c f)*2")
    decoder = g.streams()["decoder"]
    assert decoder.pattern == "set causal; (a c f)*2"
    g.nx.nodes["f2"]["options"]["glu"] = True
    assert "f(glu)" in g.pattern
    assert "f(glu)" in g.streams()["decoder"].pattern
    encoder = g.encoder
    assert encoder is not None
    assert encoder.pattern == "(a f)*2"
    encoder.nx.nodes["f1"]["options"]["glu"] = True
    assert "f(glu)" in encoder.pattern
    assert blockdsl.compile(g.pattern) == g


def test_what_changes_nothing_is_no_edit() -> None:
    g = graph()
    g.nx.nodes["a0"]["_note"] = "mine"
    g.nx.graph["_mine"] = 3
    assert g.pattern == "(a f)*3"
    renamed = BlockGraph(nx.relabel_nodes(g.nx, {"a0": "first"}))
    assert blockdsl.compile(renamed.pattern) == g, "another name is an edit, whose text is that of the same model"


def test_values_of_other_libraries_are_an_edit_and_have_a_text() -> None:
    g = graph()
    g.nx.nodes["a2"]["options"]["heads"] = np.int64(4)
    assert g.pattern == "set dim=16, heads=2; a f a(heads=4) f a f"


def test_a_graph_made_by_hand_has_the_text_it_is_given() -> None:
    g = graph()
    by_hand = nx.DiGraph(**{name: value for name, value in g.nx.graph.items() if not name.startswith("_")})
    by_hand.update(g.nx.edges(data=True), g.nx.nodes(data=True))
    by_hand.nodes["a0"]["options"]["heads"] = 4
    assert BlockGraph(by_hand).pattern == "(a f)*3"


@pytest.mark.parametrize("attrs", [lambda g: g.nx.nodes["f1"], lambda g: g.nx.graph], ids=["a node", "the graph"])
def test_another_name_for_the_same_value_is_an_edit(attrs: Callable[[BlockGraph], dict[str, Any]]) -> None:
    g = graph()
    own = attrs(g)
    name = "shift" if "shift" in own else "causal"
    renamed = {other if other != name else f"{name}ed": value for other, value in own.items()}
    own.clear()
    own.update(renamed)
    assert is_edited(g.nx)
