"""Which places a read finds, told by a rule of the test's own: a list of places a label, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blockdsl
from blockdsl import PatternError, parse
from blockdsl.language.expand import BlockSpec, ReadSpec

WHICH = ("", "latest", "pop", "first", "all", "0", "1")
JOINS = ("", "add", "gain", "gate", "cat", "linear", "soft", "route")


def places(items: list[str]) -> list[list[int]] | None:
    """For each read the places that it finds, counted in blocks and reads from the start; None: the text is wrong."""
    live: dict[str, list[int]] = {}
    out, at, here = [], 0, set[str]()
    for item in items:
        if item.startswith("^"):
            if item in here:
                return None
            here.add(item)
            live.setdefault(item[1:], []).append(at)
            continue
        if item.startswith("<"):
            name, _, inside = item[1:].partition("(")
            which = inside.removesuffix(")").split(", ")[0]
            left = live.get(name, [])
            number = int(which) if which.isdigit() else None
            if not left or (number is not None and number >= len(left)):
                return None
            if number is not None:
                out.append([left[number]])
            elif which == "pop":
                out.append([left.pop()])
            else:
                out.append({"first": left[:1], "all": list(left)}.get(which, left[-1:]))
        at, here = at + 1, set()
    return out if at else None


READ = st.builds(
    lambda name, which, join: f"<{name}" + (f"({', '.join(filter(None, (which, join)))})" if which or join else ""),
    st.sampled_from("uv"),
    st.sampled_from(WHICH),
    st.sampled_from(JOINS),
)
ITEMS = st.lists(st.one_of(st.sampled_from(["a", "f", "^u", "^u", "^v"]), READ), min_size=1, max_size=9)


@settings(max_examples=150)
@given(ITEMS, st.integers(1, 3))
def test_a_read_finds_the_places_that_the_rule_says(items: list[str], times: int) -> None:
    text = f"({' '.join(items)})*{times}"
    expected = places(items * times)
    if expected is None:
        with pytest.raises(PatternError):
            parse(text)
        return
    pattern = parse(text)
    assert parse(str(pattern)) == pattern
    assert pattern.layer_types == tuple(item for item in items * times if item in "af")
    nodes = ["input"]
    blocks = reads = 0
    for spec in pattern.expansion.flat():
        if isinstance(spec, BlockSpec):
            nodes.append(f"{spec.kind}{blocks}")
            blocks += 1
        elif isinstance(spec, ReadSpec):
            nodes.append(f"read{reads}")
            reads += 1
    graph = blockdsl.compile(pattern, dim=8, heads=2)
    assert [graph.sources(f"read{i}", "read") for i in range(reads)] == [
        [nodes[at] for at in read] for read in expected
    ]
    assert [graph.sources(node, "stream") for node in nodes[1:]] == [[before] for before in nodes[:-1]]
    for at, node in enumerate(nodes):
        named = [item[1:] for item, place in _labels(items * times) if place == at]
        assert list(graph.labels(node)) == named


def _labels(items: list[str]) -> list[tuple[str, int]]:
    out, at = [], 0
    for item in items:
        if item.startswith("^"):
            out.append((item, at))
        else:
            at += 1
    return out


def test_a_read_is_a_branch() -> None:
    graph = blockdsl.compile("^u a & <u/2@g f <u/4@g", dim=8, heads=2)
    assert graph.sources("sum0", "base") == ["input"]
    assert graph.sources("sum0", "stream") == ["a0", "read0"]
    assert [graph.nx.nodes[node]["scale"] for node in ("read0", "read1")] == [0.5, 0.25]
    assert graph.tied()["read0"] == ["read0", "read1"]
    assert graph.order()[-1] == "output"


def test_groups_definitions_and_stages_hold_labels() -> None:
    text = "half = (a f ^u)/2; enc: half*2 | dec: <u(0) (f <u(all))/3"
    graph = blockdsl.compile(text, dim=8, heads=2)
    assert str(parse(text)) == "half = (a f ^u)/2; enc: half*2 | dec: <u(0) (f <u(all))/3"
    assert graph.sources("read0", "read") == ["f1"]
    assert graph.sources("read1", "read") == ["f1", "f3"]
    assert [graph.nx.nodes[node]["scale"] for node in ("f3", "read0", "read1")] == [1 / 2, 1, 1 / 3]
    assert [graph.nx.nodes[node]["stage"] for node in ("f3", "read0", "read1")] == [0, 1, 1]


def test_parameters_of_reads_are_those_of_their_ways_to_join() -> None:
    def extra(read: str) -> int:
        text = f"^u a ^u f {read}"
        return (
            blockdsl.compile(text, dim=8, heads=2).parameters() - blockdsl.compile("a f", dim=8, heads=2).parameters()
        )

    assert [extra(f"<u({join})") for join in JOINS[1:]] == [0, 1, 8 + 1, 8 * 16, 8 * 8, 1, 8 + 8 + 1]
    assert [extra(f"<u(all, {join})") for join in JOINS[1:]] == [0, 2, 2 * (8 + 1), 8 * 24, 8 * 8, 2, 8 + 2 * (8 + 1)]
    assert extra("<u(cat)@g <u(cat)@g") == 8 * 16
