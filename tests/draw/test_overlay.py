"""A measurement in a drawing: its numbers on the blocks, its scale below them, folded repeats with their range."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import blockdsl
from blockdsl import Measurement, UserError

from .reading import check

TIMES = {"a0": 0.0012, "f1": 0.0031, "a2": 0.0018, "f3": 0.0029, "input": 0.0002, "output": 0.0107}
TOKENS = {"dim": 16, "num_tokens": 32, "max_seq_len": 8}


def graph(pattern: str = "(a f)*2", **settings: object) -> blockdsl.BlockGraph:
    return blockdsl.compile(pattern, **{**TOKENS, **settings})


def test_each_block_and_both_ends_have_their_number_and_a_colour_by_fifths_of_the_way() -> None:
    picture = check(graph().to_svg(overlay=Measurement("time", "s", TIMES, "of two passes")), graph(), unfolded=True)
    found = {node.name: (node.words[-2], next(c for c in node.classes if "heat" in c)) for node in picture.of("block")}
    assert found == {
        "a0": ("1.2 ms", "heat-0"),
        "f1": ("3.1 ms", "heat-1"),
        "a2": ("1.8 ms", "heat-0"),
        "f3": ("2.9 ms", "heat-1"),
    }
    ends = {node.name: node for node in picture.nodes if node.name in ("input", "output")}
    assert "0.2 ms" in ends["input"].words
    assert "heat-0" in ends["input"].classes
    assert "10.7 ms" in ends["output"].words
    assert "heat-4" in ends["output"].classes
    assert [key.words for key in picture.keys] == ["least 0.2 ms", "most 10.7 ms"]
    assert "time · of two passes" in [label.words for label in picture.labels]


def test_a_folded_repeat_has_the_range_of_its_numbers_their_mean_and_its_colour() -> None:
    overlay = Measurement("loss", "bits/byte", {"a0": 1.0, "f1": 7.0, "a2": 3.0, "f3": 7.0, "f4": 11.0})
    picture = check(graph("(a f)*2 f").to_svg(overlay=overlay, unfold=False), graph("(a f)*2 f"))
    words = {node.name: " ".join(node.words) for node in picture.of("block")}
    assert "1 to 3 bits/byte, mean 2" in words["a0"]
    assert "7 bits/byte each" in words["f1"]
    assert "11 bits/byte" in words["f4"]
    looks = {node.name: next(c for c in node.classes if "heat" in c) for node in picture.of("block")}
    assert looks == {"a0": "heat-0", "f1": "heat-3", "f4": "heat-4"}  # 0.1, 0.6 and 1 of the way


def test_blocks_that_were_not_measured_are_grey_and_said_to_be() -> None:
    svg = graph().to_svg(overlay=Measurement("loss", "", {"a0": 1, "f1": 2}))
    assert svg.partition("</style>")[2].count("grey-0") == 5  # two blocks, both ends, the legend
    assert "not measured" in svg
    assert "not measured" not in graph().to_svg(overlay=Measurement("time", "s", TIMES))
    assert "2 of 4" not in svg
    folded = graph("a*4").to_svg(overlay=Measurement("loss", "", {"a0": 1, "a1": 2}), unfold=False)
    assert "1 to 2, mean 1.5," in folded
    assert "2 of 4 measured" in folded


def test_numbers_of_one_value_are_one_colour() -> None:
    svg = graph().to_svg(overlay=Measurement("time", "s", dict.fromkeys(("a0", "f1", "a2", "f3"), 2e-6)))
    assert "all 2 µs" in svg
    assert {*re.findall(r"heat-\d", svg.partition("</style>")[2])} == {"heat-0"}


def test_the_text_has_the_same_numbers_and_its_legend() -> None:
    overlay = Measurement("time", "s", TIMES, "of two passes")
    text = graph("(a f)*2").to_text(overlay=overlay)
    assert "a   1.2 to 1.8 ms, mean 1.5 · self-attention" in text
    assert "f   2.9 to 3.1 ms, mean 3 · feedforward" in text
    assert text.splitlines()[1].endswith("· 0.2 ms")
    assert text.splitlines()[-2].endswith("· 10.7 ms")
    assert text.endswith("time · of two passes: least 0.2 ms, most 10.7 ms")
    edited = graph("a f")
    edited.nx.add_edge("input", "f1", stream=True)
    both = blockdsl.compile("a => c", dim=16).to_text(overlay=Measurement("n", "", {"encoder.a0": 1, "decoder.c0": 2}))
    assert "a   1 · self-attention" in both
    assert "c   2 · cross-attention" in both


def test_two_streams_and_graphs_side_by_side_have_one_scale() -> None:
    overlay = Measurement("loss", "", {"encoder.a0": 1, "decoder.c0": 5, "decoder.f1": 2.9})
    svg = blockdsl.compile("a => c f", dim=16).to_svg(overlay=overlay)
    looks = dict(re.findall(r'class="block kind-. (heat-\d)" data-node="([\w.]+)"', svg.replace("\n", "")))
    assert looks == {"heat-0": "encoder.a0", "heat-4": "decoder.c0", "heat-2": "decoder.f1"}
    assert svg.count(">least ") == 1


def test_reads_and_branches_have_theirs() -> None:
    g = graph("^u (a & f) <u(gain)")
    read = g.nodes("read")[0]
    svg = g.to_svg(overlay=Measurement("loss", "", {"a0": 1.5, "f1": 2.5, read: 0.25}))
    words = {node.name: node.words for node in check(svg, g, unfolded=True).nodes}
    assert "1.5" in words["a0"]
    assert "2.5" in words["f1"]
    assert any("0.25" in word for word in words[read])


def test_every_format_and_detail_takes_one(tmp_path: Path) -> None:
    g, overlay = graph(), Measurement("time", "s", TIMES)
    for detail in ("block", "op"):
        assert "3.1 ms" in g.to_svg(overlay=overlay, detail=detail)
    assert g.to_html(overlay=overlay) != g.to_html()
    assert g.to_png(overlay=overlay) != g.to_png()
    assert g.to_pdf(overlay=overlay).startswith(b"%PDF")


@pytest.mark.parametrize(
    ("values", "unit", "said"),
    [
        ([0.0012, 0.0000031], "s", ["1.2 ms", "0.0031 ms"]),
        ([2.5, 0.004], "s", ["2.5 s", "0.004 s"]),
        ([0.0], "s", ["0 s"]),
        ([0.0009998, 0.0000031], "s", ["1 ms", "0.0031 ms"]),
        ([1.2e12, 3e11], "FLOP/s", ["1.2 TFLOP/s", "0.3 TFLOP/s"]),
        ([12_345_678, 20_000], "B", ["12.3 MB", "0.02 MB"]),
        ([999], "B", ["999 B"]),
        ([-0.25, 3], "bits/byte", ["-0.25 bits/byte", "3 bits/byte"]),
        ([-12_000], "", ["-12 k"]),
    ],
)
def test_numbers_of_a_measurement_have_one_unit(values: list[float], unit: str, said: list[str]) -> None:
    own = Measurement("x", unit, {f"a{i}": value for i, value in enumerate(values)})
    assert [own.said(value) for value in values] == said


def test_a_measurement_is_of_finite_numbers_and_of_this_graph() -> None:
    with pytest.raises(UserError, match="time of a0 is nan: a measurement is of finite numbers"):
        Measurement("time", "s", {"a0": float("nan")})
    with pytest.raises(UserError, match="time of a0 must be a number, not 'x'"):
        Measurement("time", "s", {"a0": "x"})  # type: ignore[dict-item]
    with pytest.raises(UserError, match=r"time: values are a number for each node, .*, not list"):
        Measurement("time", "s", [0.1, 0.2])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="time: nodes are called by their names, as 'a0', not 0"):
        Measurement("time", "s", {0: 0.1})  # type: ignore[dict-item]
    assert Measurement("time", "s", {"a0": np.float32(0.5)}).values == {"a0": 0.5}
    other = Measurement("time", "s", {"a22": 1.0})
    for draw in (graph().to_svg, graph().to_text, graph().to_html):
        with pytest.raises(UserError, match=r"time of a22: the graph has no such node; did you mean 'a2'\?"):
            draw(overlay=other)
    with pytest.raises(UserError, match="give overlay or color='params'; a block has one colour"):
        graph().to_svg(overlay=Measurement("time", "s", TIMES), color="params")
    with pytest.raises(UserError, match=r"overlay must be a blockdsl\.Measurement, as found\['time'\] is, not dict"):
        graph().to_svg(overlay=TIMES)  # type: ignore[arg-type]
    assert "nothing was measured" in graph().to_text(overlay=Measurement("time", "s", {}))
    assert "time" in graph().to_svg(overlay=Measurement("time", "s", {}))
