"""DOT and Mermaid: small ones whole; random ones read back by a parser of this file's own and held against the graph."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import networkx as nx
import pytest
from hypothesis import given, settings

import blockdsl
from blockdsl import BlockGraph

from .patterns import Model, models

SIZES = {"dim": 16, "heads": 2, "attn_dim_head": 4}
NASTY = 'q"<b>&amp;\\n`[x]#35;|é{}\\'


def graph(pattern: str, **keywords: Any) -> BlockGraph:
    return blockdsl.compile(pattern, **(SIZES | keywords))


def nasty() -> BlockGraph:
    """Names, ties and stages of signs that mean something to one language or the other."""
    g = graph("a f | a")
    g.nx.nodes["a0"]["tie"] = g.nx.nodes["a2"]["tie"] = NASTY
    g.nx.graph["stages"] = ['ü "x\\', "1. end"]
    g.nx = nx.relabel_nodes(g.nx, {"f1": 'no"de\\', "a2": "a:b -> c", "a0": "end"})
    return g.lint()


# Whole ones ----------------------------------------------------------------------------------------------------------

DOT = """\
digraph blocks {
  rankdir=TB;
  fontname="sans-serif";
  node [fontname="sans-serif"];
  edge [fontname="sans-serif", fontsize=10];
  label="dim 16 · 2 heads of 4 · pre-norm LayerNorm · 5 blocks · 2 stages · 12,480 parameters"; labelloc=t;
  "input" [label="input", shape=plaintext];
  "context" [label="context", shape=box, style=dashed, color="#7a5fc0"];
  subgraph cluster_0 {
    label="stage 1: x";
    labeljust=l; style=rounded; color="#999999";
    subgraph cluster_1 {
      label="×3";
      labeljust=l; style=rounded; color="#999999";
      "f0" [label="f(glu)/2\\nfeedforward\\nGEGLU 64", shape=box, style="rounded,filled", fillcolor="#f7cba7", color="#a6692c"];
    }
  }
  subgraph cluster_2 {
    label="stage 2";
    labeljust=l; style=rounded; color="#999999";
    "f3" [label="f\\nfeedforward\\nGELU 64", shape=box, style="rounded,filled", fillcolor="#f7cba7", color="#a6692c"];
    "c4" [label="c\\ncross-attention\\n2 heads × 4", shape=box, style="rounded,filled", fillcolor="#f1d8fd", color="#8f68a5"];
    "sum0" [label="+", shape=circle, width=0.3, fixedsize=true];
  }
  "output" [label="output\\nLayerNorm", shape=plaintext];
  "input" -> "f0";
  "f0" -> "f3";
  "f0" -> "c4";
  "context" -> "c4" [style=dashed, color="#7a5fc0"];
  "f0" -> "sum0" [color="#888888"];
  "f3" -> "sum0";
  "c4" -> "sum0";
  "sum0" -> "output";
}
"""
MERMAID = """\
---
title: "dim 16 · 2 heads of 4 · pre-norm LayerNorm · 5 blocks · 2 stages · 12,480 parameters"
---
flowchart TB
  n0(["input"])
  n4[/"context"/]
  subgraph s0["stage 1: x"]
    subgraph s0_0["×3"]
      n1["f(glu)/2<br/>feedforward<br/>GEGLU 64"]
    end
  end
  subgraph s1["stage 2"]
    n2["f<br/>feedforward<br/>GELU 64"]
    n3["c<br/>cross-attention<br/>2 heads × 4"]
    n5(("#43;"))
  end
  n6(["output<br/>LayerNorm"])
  n0 --> n1
  n1 --> n2
  n1 --> n3
  n4 -. context .-> n3
  n1 --> n5
  n2 --> n5
  n3 --> n5
  n5 --> n6
  classDef k0 fill:#f7cba7,stroke:#a6692c,color:#111
  class n1,n2 k0
  classDef k1 fill:#f1d8fd,stroke:#8f68a5,color:#111
  class n3 k1
  linkStyle 4 stroke:#888888
  linkStyle 3 stroke:#7a5fc0
"""


def test_a_small_graph() -> None:
    g = graph("x: f(glu)/2*3 | f & c")
    assert g.to_dot(fold=True) == DOT
    assert g.to_mermaid() == MERMAID


def test_every_repeat_unfolded() -> None:
    dot = Dot(graph("(a f)*12").to_dot())
    assert len(dot.labels) == 26
    assert "subgraph" not in graph("(a f)*12").to_mermaid(fold=False)
    assert graph("(a f)*12").to_mermaid(fold=False).count("-->") == 25


def test_nested_repeats_nest() -> None:
    dot = Dot(graph("((a f f)*2 c)*4").to_dot(fold=True))
    assert [dot.titles[cluster] for cluster in dot.clusters["a0"]] == ["×4", "×2"]
    assert [dot.titles[cluster] for cluster in dot.clusters["f1"]] == ["×4", "×2", "×2"]
    assert [dot.titles[cluster] for cluster in dot.clusters["c6"]] == ["×4"]
    assert ("f1", "c6", "stream") in dot.edges


def test_positions_scores_and_ties_have_edges_of_their_own() -> None:
    g = graph("a@x f a@x", rotary_pos_emb=True, residual_attn=True, num_tokens=300, max_seq_len=9)
    dot = Dot(g.to_dot())
    others = {edge for edge in dot.edges if edge[2] != "stream"}
    assert others == {
        *{("rotary2", "a0", "position"), ("rotary2", "a2", "position")},
        *{("a0", "a2", "scores"), ("a0", "a2", "tied")},
    }
    assert dot.labels["rotary2"] == "rotary 2"
    assert dot.labels["input"] == "input\n300 tokens\nup to 9 a row"
    assert dot.labels["output"] == "output\nLayerNorm\n300 logits\nbias of the logits"
    assert dot.labels["a0"] == "a@x\nself-attention\n2 heads × 4"
    links = [line.strip() for line in g.to_mermaid().splitlines() if ".-" in line]
    assert links == ["n2 -.-> n1", "n2 -.-> n4", "n1 -. scores .-> n4", "n1 -. tied .- n4"]


# A parser of the DOT that is written, by https://graphviz.org/doc/info/lang.html ---------------------------------------

STYLES = {
    "": "stream",
    'color="#888888"': "base",
    'style=dashed, color="#7a5fc0"': "context",
    'style=dashed, color="#a8701c"': "condition",
    'style=dotted, color="#2f8f7d", constraint=false': "position",
    'style=dashed, color="#c2527a", label="scores", constraint=false': "scores",
    'color="#962800", fontcolor="#962800"': "read",
    'style=dashed, color="#0b4f8a", label="keys, values", constraint=false': "kv",
    'style=dotted, color="#0b4f8a", label="values", constraint=false': "values",
    'style=dotted, dir=none, color="#c0392b", label="tied", constraint=false': "tied",
}
QUOTED = r'"((?:[^"\\]|\\.)*)"'  # a quoted string, in which a backslash takes the next sign along


class Dot:
    """A text in DOT, read line by line; any line that is not understood is an error.

    Attributes:
        head: what stands above all of it.
        labels: node → its label, as it is shown.
        clusters: node → the clusters around it, from the outermost on.
        titles: cluster → its label.
        edges: (source, target, what it carries by its style).
    """

    def __init__(self, text: str) -> None:
        lines = text.splitlines()
        assert lines[0] == "digraph blocks {"
        assert lines[-1] == "}"
        assert text.endswith("}\n")
        self.labels: dict[str, str] = {}
        self.clusters: dict[str, list[str]] = {}
        self.titles: dict[str, str] = {}
        self.edges: list[tuple[str, str, str]] = []
        self.words: dict[tuple[str, str, str], str] = {}
        opened: list[str] = []
        above = re.fullmatch(rf"  label={QUOTED}; labelloc=t;", lines[5])
        assert above
        self.head = shown(above[1])
        for line in (line.strip() for line in lines[6:-1]):
            if match := re.fullmatch(r"subgraph (cluster_\d+) \{", line):
                assert match[1] not in self.titles
                opened.append(match[1])
            elif match := re.fullmatch(rf"label={QUOTED};", line):
                self.titles[opened[-1]] = shown(match[1])
            elif line == "}":
                opened.pop()
            elif match := re.fullmatch(rf"{QUOTED} \[label={QUOTED}, .*\];", line):
                node = name(match[1])
                assert node not in self.labels
                self.labels[node], self.clusters[node] = shown(match[2]), [*opened]
            elif match := re.fullmatch(rf"{QUOTED} -> {QUOTED}(?: \[(.*)\])?;", line):
                assert {name(match[1]), name(match[2])} <= self.labels.keys()
                style, said = match[3] or "", ""
                if style not in STYLES:
                    style, said = re.fullmatch(rf"(.*), label={QUOTED}(?:, penwidth=2.5)?", style).groups()
                what = "skip" if said.startswith(("added", "its gain added")) else STYLES[style]
                self.edges.append((name(match[1]), name(match[2]), what))
                self.words[self.edges[-1]] = said
            else:
                assert line == 'labeljust=l; style=rounded; color="#999999";'
        assert not opened


def name(text: str) -> str:
    """An identifier: a doubled backslash is written for one."""
    return re.sub(r"\\(.)", r"\1", text)


def shown(text: str) -> str:
    """A label: escapes are read, and then HTML's entities are."""
    text = re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], text)
    assert re.sub("&amp;", "", text).count("&") == 0
    return text.replace("&amp;", "&")


class Link(NamedTuple):
    source: str
    arrow: str
    target: str


class Mermaid:
    """A flowchart, read line by line. labels, clusters and titles as those of Dot, links in order."""

    def __init__(self, text: str) -> None:
        opening, title, closing, first, *lines = text.splitlines()
        assert (opening, closing, first) == ("---", "---", "flowchart TB")
        self.head = json.loads(title.removeprefix("title: "))
        self.labels: dict[str, str] = {}
        self.clusters: dict[str, list[str]] = {}
        self.titles: dict[str, str] = {}
        self.links: list[Link] = []
        opened: list[str] = []
        safe = r'"([^"`\\<>&]*(?:<br/>[^"`\\<>&]*)*)"'
        for line in (line.strip() for line in lines):
            if match := re.fullmatch(rf"subgraph (\w+)\[{safe}\]", line):
                assert match[1] not in self.titles
                opened.append(match[1])
                self.titles[match[1]] = decoded(match[2])
            elif line == "end":
                opened.pop()
            elif match := re.fullmatch(rf"(n\d+)(?:\(\[|\[/|\(\(|\[){safe}(?:\]\)|/\]|\)\)|\])", line):
                assert match[1] not in self.labels
                self.labels[match[1]], self.clusters[match[1]] = decoded(match[2]), [*opened]
            elif match := re.fullmatch(
                rf"(n\d+) (-->|=={safe}==>|-- {safe} -->|-\. (?:[a-z, ]+|{safe}) \.->?|-\.->) (n\d+)", line
            ):
                assert {match[1], match[6]} <= self.labels.keys()
                self.links.append(Link(match[1], match[2], match[6]))
            else:
                assert re.match(r"(classDef k\d+ |class (n\d+,?)+ k\d+$|linkStyle (\d+,?)+ stroke:#)", line), line
        assert not opened


def decoded(text: str) -> str:
    text = re.sub(r"#(\d+);", lambda match: chr(int(match[1])), text.replace("<br/>", "\n"))
    assert "\\n" not in text, "Mermaid makes a new line of it"
    return text.replace("\u200b", "")  # a space of no width


# Random ones ---------------------------------------------------------------------------------------------------------


def edges(g: BlockGraph) -> Iterator[tuple[str, str, str]]:
    for source, target, attrs in g.nx.edges(data=True):
        for carries in attrs.get("carries", ("stream",)):
            yield source, target, carries


def times(titles: list[str]) -> int:
    count = 1
    for title in titles:
        count *= int(title[1:]) if title.startswith("×") else 1
    return count


def check(g: BlockGraph) -> None:
    whole = Dot(g.to_dot())
    assert whole.labels.keys() == {*g.nx}
    untied = [edge for edge in whole.edges if edge[2] != "tied"]
    streams = {(source, target): what for source, target, what in edges(g) if what in ("stream", "base")}
    untied = [(*edge[:2], streams[edge[:2]]) if edge[2] == "skip" else edge for edge in untied]
    assert sorted(untied) == sorted(edges(g))
    groups = [nodes for nodes in g.tied().values() if len(nodes) > 1]
    tied = nx.Graph([edge[:2] for edge in whole.edges if edge[2] == "tied"])
    assert sorted(map(sorted, nx.connected_components(tied))) == sorted(map(sorted, groups))
    for node, attrs in g.nx.nodes(data=True):
        around = [whole.titles[cluster] for cluster in whole.clusters[node]]
        stage = attrs.get("stage")
        if stage is None or g.stages == [None]:
            assert around == []
        else:
            own = g.stages[stage]
            title = f"stage {stage + 1}" + (f": {own}" if own else "")
            assert around == [title] or f"of {title}" in whole.labels[node].splitlines()

    folded = Dot(g.to_dot(fold=True))
    assert folded.labels.items() <= whole.labels.items()
    blocks = [node for node in folded.labels if g.nx.nodes[node]["type"] in ("block", "read", "sum")]
    drawn = {node: times([folded.titles[cluster] for cluster in folded.clusters[node]]) for node in blocks}
    assert sum(drawn.values()) == sum(len(g.nodes(t)) for t in ("block", "read", "sum")), (
        "a copy stands for all of them"
    )
    assert len({*folded.edges}) == len(folded.edges)
    assert nx.is_directed_acyclic_graph(nx.DiGraph([edge[:2] for edge in folded.edges if edge[2] == "stream"]))

    for fold, dot in ((False, whole), (True, folded)):
        chart = Mermaid(g.to_mermaid(fold))
        assert sorted(chart.labels.values()) == sorted(dot.labels.values())
        assert chart.head == dot.head.replace("\n", " · ")
        assert sorted(chart.titles.values()) == sorted(dot.titles.values())
        assert len(chart.links) == len(dot.edges)
        ends = sorted((chart.labels[link.source], chart.labels[link.target]) for link in chart.links)
        assert ends == sorted((dot.labels[edge[0]], dot.labels[edge[1]]) for edge in dot.edges)


@settings(max_examples=60, deadline=None)
@given(models())
def test_what_is_drawn_is_the_graph(model: Model) -> None:
    g = blockdsl.compile(model.text, **model.settings)
    check(g)
    folded = Dot(g.to_dot(fold=True))
    reach = nx.DiGraph([edge[:2] for edge in folded.edges if edge[2] == "stream"])
    drawn = [node for node in folded.labels if g.nx.nodes[node]["type"] in ("block", "read", "sum")]
    assert {*nx.ancestors(reach, g.end)} == {*drawn, g.start}, "all lies on a way from the input to the output"
    again = BlockGraph.from_json(g.to_json())
    assert (again.to_dot(), again.to_mermaid()) == (g.to_dot(), g.to_mermaid())


def test_signs_that_mean_something_are_shown_as_they_are() -> None:
    g = nasty()
    check(g)
    dot, chart = Dot(g.to_dot()), Mermaid(g.to_mermaid())
    assert dot.labels["end"] == f"a@{NASTY}\nself-attention\n2 heads × 4"
    assert dot.labels['no"de\\'] == "f\nfeedforward\nGELU 64"
    assert [*dot.titles.values()] == ['stage 1: ü "x\\', "stage 2: 1. end"]
    assert f"a@{NASTY}\nself-attention\n2 heads × 4" in chart.labels.values()
    assert [*chart.titles.values()] == ['stage 1: ü "x\\', "stage 2: 1. end"]


def test_a_graph_that_is_more_than_chains_and_branches_is_drawn_whole() -> None:
    g = graph("a f a f")
    g.nx.add_edge("input", "a2")
    check(g)
    assert g.to_dot(fold=True) == g.to_dot()


def test_the_parsers_of_this_file_can_fail() -> None:
    dot, chart = graph("a f").to_dot(), graph("a f").to_mermaid()
    for broken in (dot[:-2], dot.replace("f1", 'f"1'), dot.replace('"a0" [', '"a0" ['.upper())):
        with pytest.raises((AssertionError, KeyError)):
            Dot(broken)
    for broken in (chart.replace("n1 ", "n1 n9 "), chart.replace("<br/>", '"')):
        with pytest.raises(AssertionError):
            Mermaid(broken)


def test_kinds_that_users_register_have_colours_of_their_own() -> None:
    for own in ("one", "two"):
        blockdsl.register(
            blockdsl.Kind(own, f'"{own}" & <more>', (), lambda o: {}, lambda o, s: 0, "torch.nn:Identity")
        )
    try:
        g = graph("one two f")
        check(g)
        dot = g.to_dot()
        assert Dot(dot).labels["one0"] == 'one\n"one" & <more>'
        fills = re.findall(r'fillcolor="(#\w+)"', dot)
        assert len(fills) == len({*fills}) == 3
    finally:
        for own in ("one", "two"):
            blockdsl.unregister(own)
