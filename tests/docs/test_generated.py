"""What is generated is up to date: the page of the options, pictures, figures of speed. And it says what it should."""

from __future__ import annotations

import re
import struct

import pytest

import blockdsl

from . import figures, gallery, options, photograph, pictures
from .pages import DOCS, README, with_outputs

ANEW = "python -m tests.docs writes it anew"


def test_the_options_are_those_of_the_tables() -> None:
    shown = options.PAGE.read_text(encoding="utf-8")
    assert shown == options.page(), ANEW
    assert "| `attn_sparse_topk` | `a(sparse_topk=8)` |" in shown
    assert "[arXiv:2104.09864](https://arxiv.org/abs/2104.09864)" in shown


def test_every_table_of_options_has_defaults() -> None:
    rows = [
        re.split(r"(?<!\\)\|", line)[1:-1]
        for line in options.PAGE.read_text(encoding="utf-8").splitlines()
        if line[:1] == "|"
    ]
    assert len(rows) > 80
    assert {len(row) for row in rows} == {5}
    given = {row[0].strip(): row[4].strip() for row in rows}
    assert given["`attn_flash`"] == "`true`"
    assert given["`heads`"] == "`8`"
    assert given["`attn_sparse_topk`"] == "`none`"
    without = {keyword for keyword, default in given.items() if not default}
    assert without <= {"", "`dim`", "`depth`", "`num_tokens`", "`max_seq_len`"}, "an option has no default"


@pytest.mark.parametrize("name", pictures.pictures())
def test_a_picture_is_what_is_drawn(name: str) -> None:
    assert (pictures.PICTURES / name).read_text(encoding="utf-8") == pictures.pictures()[name] + "\n", ANEW


def test_every_picture_is_shown_and_every_one_shown_is_there() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in [README, *DOCS.rglob("*.md")])
    shown = set(re.findall(r"!\[[^]]+\]\([^)]*pictures/(\w+\.svg)\)", text))
    assert (
        shown == set(pictures.pictures()) == {path.name for path in pictures.PICTURES.glob("*.svg")} - {"favicon.svg"}
    )


def test_the_photograph_of_the_page_is_shown_small_and_of_a_pattern_that_there_is() -> None:
    assert f"](pictures/{photograph.FILE.name})" in (DOCS / "edit.md").read_text(encoding="utf-8")
    png = photograph.FILE.read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", png[16:24]) == photograph.SIZE
    assert len(png) < 200_000
    graph = blockdsl.compile(photograph.TEXT)
    assert len(graph.nodes("block")) == 48, "as the page in the picture says"
    assert round(graph.parameters() / 1e6) == 544


def test_the_gallery_is_of_the_zoo() -> None:
    shown = gallery.PAGE.read_text(encoding="utf-8")
    assert shown == with_outputs(gallery.page()), ANEW
    drawn = gallery.pictures()
    assert {*re.findall(r"pictures/zoo/(\w+\.svg)", shown)} == {*drawn}
    assert {path.name: path.read_text(encoding="utf-8") for path in gallery.PICTURES.iterdir()} == {
        name: svg + "\n" for name, svg in drawn.items()
    }, ANEW
    cut = {name: re.findall(r"<text[^>]*>([^<]*…)<", svg) for name, svg in drawn.items()}
    assert [*filter(None, cut.values())] == []
    assert (gallery.spoken(124_439_808), gallery.spoken(999_885_952)) == ("124 M", "1 B")


def test_the_figures_are_those_that_were_measured() -> None:
    speed, readme = figures.SPEED.read_text(encoding="utf-8"), README.read_text(encoding="utf-8")
    assert speed == figures.with_figures(speed), ANEW
    assert readme == figures.with_readme_figures(readme), ANEW
    assert figures.with_figures(speed.replace("a plain decoder", "")) == speed
    assert speed.count("\n| a plain decoder |") >= 4
    assert figures.spoken(0.8274) == "0.83 s"
    assert figures.spoken(0.0271) == "27 ms"
