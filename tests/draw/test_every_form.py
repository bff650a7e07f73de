"""Every form tells every option, without what the operations inside a block would say: what differs differs in each."""

from __future__ import annotations

import re
from itertools import combinations

import pytest

import blockdsl
from blockdsl import BlockGraph
from blockdsl.reference import needs
from blockdsl.registry.kinds import OF_ALL_BLOCKS
from blockdsl.registry.options import Option

from ..thorough import part_of
from .test_every_option import OF_BLOCKS, OF_STACK, models, same, values

OWN = [
    (kind, option) for kind, option in OF_BLOCKS if not option.reads and (kind == "a" or option not in OF_ALL_BLOCKS)
]
SIZE = re.compile(r"[\d,.]+ ?\w? parameters(, [\d,.]+ ?\w? active)?")


def told(graph: BlockGraph) -> dict[str, str]:
    """What is read in each form, as if no text had set an option of its blocks, but for how many parameters it has."""
    for node in graph.nodes("block"):
        graph.nx.nodes[node]["given"] = {}
    svg = re.sub(r'<title>.*?</title>|<desc>.*?</desc>| aria-label="[^"]*"', "", graph.to_svg(), flags=re.S)
    assert graph.to_text(ascii=True).isascii()
    forms = {"svg": svg, "text": graph.to_text(), "dot": graph.to_dot(fold=True)}  # Mermaid's words are those of DOT
    return {form: SIZE.sub("", text) for form, text in forms.items()}


@pytest.mark.parametrize(("kind", "option"), part_of(OWN, 8), ids=lambda x: getattr(x, "name", x))
def test_an_option_of_a_block(kind: str, option: Option) -> None:
    drawn = [(value, graph, told(graph)) for value, graph in models(kind, option)]
    for (value, graph, forms), (other, second, others) in combinations(drawn, 2):
        alike = [form for form in forms if forms[form] == others[form]]
        assert not alike or same(graph, second, kind), (value, other, alike)


@pytest.mark.parametrize("option", part_of(OF_STACK, 4), ids=lambda option: option.name)
def test_a_setting_of_the_stack(option: Option) -> None:
    drawn = {}
    for value in values(option):
        try:
            drawn[value] = blockdsl.compile(
                "(a f)*2", **{"dim": 512, **needs(option.name, option.area), option.name: value}
            )
        except blockdsl.UserError:
            continue
    forms = {value: told(graph) for value, graph in drawn.items()}
    for value, other in combinations(forms, 2):
        alike = [form for form in forms[value] if forms[value][form] == forms[other][form]]
        assert not alike or drawn[value].to_json() == drawn[other].to_json(), (value, other, alike)
