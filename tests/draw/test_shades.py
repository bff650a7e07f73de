"""The colours of what two graphs differ in, and that what is written on any colour can be read."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

import blockdsl
from blockdsl.draw.color.palette import HEATS, HUES, style

SVG = "{http://www.w3.org/2000/svg}"


def looks(svg: str) -> dict[str, str]:
    """Each block's node → the class of its colour."""
    blocks = [g for g in ElementTree.fromstring(svg).iter(f"{SVG}g") if "block" in g.get("class", "").split()]
    return {g.attrib["data-node"]: re.search(r"(hue|heat|grey)-\d", g.attrib["class"])[0] for g in blocks}  # type: ignore[index]


def meanings(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text") if text.get("class") == "note"]


def test_a_difference_is_both_graphs_in_the_colours_of_what_became_of_their_blocks(tmp_path: Path) -> None:
    before = blockdsl.compile("(a f)*2", dim=16)
    after = blockdsl.compile("a(heads=4) f a f f", dim=16)
    svg = before.diff(after).to_svg(tmp_path / "x.svg")
    assert (tmp_path / "x.svg").read_text(encoding="utf-8") == svg + "\n"
    found = looks(svg)
    assert [found[f"before.{node}"] for node in ("a0", "f1", "a2", "f3")] == ["hue-2", "grey-0", "grey-0", "grey-0"]
    assert [found[f"after.{node}"] for node in ("a0", "f1", "a2")] == ["hue-2", "grey-0", "grey-0"]
    assert sorted(found[f"after.{node}"] for node in ("f3", "f4")) == ["grey-0", "hue-4"]
    assert [text for text in meanings(svg) if text in ("alike", "changed", "added", "removed")] == [
        "alike",
        "changed",
        "added",
    ]
    edges = [path.attrib for path in ElementTree.fromstring(svg).iter(f"{SVG}path") if "data-from" in path.attrib]
    assert not [e for e in edges if e["data-from"].split(".")[0] != e["data-to"].split(".")[0]], "nothing joins the two"


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance of "#rrggbb"."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_what_is_written_on_a_block_can_be_read_on_every_colour(mode: str) -> None:
    part = style().partition("@media")[0 if mode == "light" else 2]
    title = re.search(r"blockdsl text{fill:(#\w+)", part)
    assert title
    for look in [f"heat-{i}" for i in range(len(HEATS))] + [f"hue-{i}" for i in range(len(HUES))]:
        fill = re.search(rf"\.{look}>rect,[^{{]*{{fill:(#\w+)", part)
        text = re.search(rf"\.{look}>text\.note{{fill:(#\w+)", part)
        assert fill
        assert text
        for written in (title[1], text[1]):
            darker, lighter = sorted(map(luminance, (fill[1], written)))
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (look, written)


def test_no_rule_of_a_picture_is_of_what_is_beside_it_on_a_page() -> None:
    rules = style().replace("@media (prefers-color-scheme:dark){", "")
    selectors = [selector.strip() for rule in re.findall(r"([^{}]+){", rules) for selector in rule.split(",")]
    assert len(selectors) > 100
    assert {selector.split()[0] for selector in selectors} == {".blockdsl"}


def test_a_setting_that_all_blocks_changed_is_written_on_those_after() -> None:
    before, after = (blockdsl.compile("(a f)*2", dim=16, heads=heads) for heads in (4, 8))
    svg = before.diff(after).to_svg(unfold=True)
    assert svg.count(">8 heads × 64<") == 2
    assert svg.count(">heads 4 → 8<") == 2
    assert ">heads=4<" not in svg
