"""`blockdsl draw`: the file's name says the form, and what it cannot do is said."""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from blockdsl import compile
from xt_blocks.cli import draw

from ..draw.reading import check, read
from .conftest import Ran, process

Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def text(name: str) -> str:
    return Path(name).read_text(encoding="utf-8")


def test_an_svg_of_a_pattern_with_settings(blockdsl: Run) -> None:
    ran = blockdsl("draw", "(a f)*6", "-o", "x.svg", "--dim", 64, "--causal", "--set", "rotary_pos_emb")
    assert ran == (0, "wrote x.svg\n", "")
    picture = check(text("x.svg"), compile("(a f)*6", dim=64, causal=True, rotary_pos_emb=True))
    assert picture.node("input").words == ["Input", "dim 64"]
    assert picture.width < 400


def test_options_of_a_picture(blockdsl: Run) -> None:
    assert blockdsl("draw", "a f", "-o", "x.svg", "--unfold", "--detail", "op", "--color", "params").status == 0
    picture = read(text("x.svg"))
    assert len(picture.keys) == 2
    assert "softmax" in picture.node("a0").words


def test_a_file_standard_input_and_a_graph(blockdsl: Run) -> None:
    Path("m.pattern").write_text("(a f)*3\n", encoding="utf-8")
    Path("run").mkdir()
    Path("run/graph.json").write_text(compile("(a f)*3", dim=512).to_json(), encoding="utf-8")
    assert blockdsl("draw", "m.pattern", "-o", "file.svg").status == 0
    assert blockdsl("draw", "-o", "piped.svg", stdin="(a f)*3").status == 0
    assert blockdsl("draw", "run", "-o", "run.svg").status == 0
    assert blockdsl("draw", "run/graph.json", "-o", "json.SVG").status == 0
    assert text("file.svg") == text("piped.svg") == text("run.svg") == text("json.SVG")


def test_the_text_drawing_as_a_file(blockdsl: Run) -> None:
    assert blockdsl("draw", "(a f)*3", "-o", "x.txt").status == 0
    assert text("x.txt") == compile("(a f)*3", dim=512).to_text() + "\n"


def test_dot_and_mermaid(blockdsl: Run) -> None:
    g = compile("(a f)*3", dim=512)
    for arguments, written in (
        (["x.dot"], g.to_dot(fold=True)),
        (["x.dot", "--unfold"], g.to_dot()),
        (["x.mmd"], g.to_mermaid()),
        (["x.mmd", "--unfold"], g.to_mermaid(fold=False)),
    ):
        assert blockdsl("draw", "(a f)*3", "-o", *arguments).status == 0
        assert text(arguments[0]).rstrip("\n") == written.rstrip("\n")


def test_a_page(blockdsl: Run) -> None:
    assert blockdsl("draw", "(a f)*3", "-o", "x.html", "--detail", "op", "--unfold").status == 0
    assert text("x.html") == compile("(a f)*3", dim=512).to_html(detail="op", unfold=True)


def test_a_hyphen_is_standard_output() -> None:
    g = compile("(a f)*3", dim=512)
    drawn = process("draw", "(a f)*3", "-o", "-")
    assert (drawn.returncode, drawn.stdout.decode(), drawn.stderr) == (0, g.to_svg() + "\n", b"")
    dot = process("draw", "(a f)*3", "-o", "-", "--format", "dot").stdout.decode()
    assert dot.rstrip("\n") == g.to_dot(fold=True).rstrip("\n")
    assert process("draw", "a", "-o", "-", "--format", "png").stdout.startswith(b"\x89PNG")
    assert not Path("-").exists()


def test_standard_output_takes_every_format() -> None:
    starts = {"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF", "html": b"<!doctype html>", "dot": b"digraph"}
    starts |= {"mmd": b'---\ntitle: "dim 512', "txt": b"dim 512"}
    assert {f".{name}" for name in starts} == {*draw.FORMS}
    for name, start in starts.items():
        ran = process("draw", "(a f)*3", "-o", "-", "--format", name)
        assert (ran.returncode, ran.stderr) == (0, b""), name
        assert ran.stdout.startswith(start), name
        assert not ran.stdout.endswith(b"wrote -\n")
    for name in ("png", "pdf", "html"):
        ran = process("diff", "a f", "a f f", "-o", "-", "--format", name)
        assert (ran.returncode, ran.stderr) == (1, b""), name
        assert ran.stdout.startswith(starts[name]), name
    plan = process("plan", "(a f)*4", "--mesh", "pp=2", "-o", "-")
    assert plan.stdout.startswith(b"<svg")
    assert plan.stdout.endswith(b"</svg>\n")


@pytest.mark.parametrize("command", [("draw", "a f"), ("diff", "a f", "a f f")])
@pytest.mark.parametrize(
    ("theme", "ground"), [("dark", (13, 17, 23)), ("light", (255, 255, 255)), (None, (255, 255, 255))]
)
def test_themes_of_a_png(blockdsl: Run, command: tuple[str, ...], theme: str | None, ground: tuple[int, ...]) -> None:
    from PIL import Image

    chosen = [] if theme is None else ["--theme", theme]
    assert blockdsl(*command, "-o", "x.png", *chosen).status in (0, 1)
    image = Image.open("x.png").convert("RGB")
    assert image.getpixel((2, 2)) == ground
    darkest, lightest = image.convert("L").getextrema()
    assert darkest < 60, "text, or the ground"
    assert lightest > 200
    assert blockdsl(*command, "-o", "x.svg", *chosen).status in (0, 1)
    assert ("prefers-color-scheme" in text("x.svg")) == (theme is None)


def test_a_pdf_has_the_picture_and_its_fonts(blockdsl: Run) -> None:
    assert blockdsl("draw", "(a f(glu))*3", "-o", "x.pdf", "--theme", "dark").status == 0
    page = Path("x.pdf").read_bytes()
    picture = read(compile("(a f(glu))*3", dim=512).to_svg())
    width, height = map(float, re.search(rb"MediaBox \[ 0 0 (\S+) (\S+) \]", page).groups())
    assert (width, height) == pytest.approx((picture.width * 0.75, picture.height * 0.75), abs=1)
    assert b"DejaVuSansMono" in page
    assert b"DejaVuSans-Bold" in page
    streams = [
        zlib.decompress(part) for part in re.findall(rb"FlateDecode\s*>>\s*stream\r?\n(.*?)\r?\nendstream", page, re.S)
    ]
    painted = b" ".join(streams)
    assert b"0.0509804 0.0666667 0.0901961 rg" in painted, "the ground is dark"
    assert painted.count(b"Tj") + painted.count(b"TJ") >= 6


def test_a_theme_or_a_format_needs_a_picture(blockdsl: Run) -> None:
    assert (
        blockdsl("diff", "a", "f", "--theme", "dark").err
        == "blockdsl diff: --theme is of the picture: say where to with -o\n"
    )
    assert "--format is of the picture" in blockdsl("diff", "a", "f", "--format", "png").err
    assert "--theme: not for .html files" in blockdsl("draw", "a", "-o", "x.html", "--theme", "dark").err


def test_a_hyphen_is_standard_output_of_a_difference_too() -> None:
    drawn = process("diff", "a f", "a f f", "-o", "-")
    assert (drawn.returncode, drawn.stderr) == (1, b"")
    assert drawn.stdout.startswith(b"<svg ")
    assert drawn.stdout.endswith(b"</svg>\n")
    both = process("diff", "a f", "a f f", "-o", "-", "--json")
    assert (both.returncode, both.stdout) == (2, json.dumps({"ok": False, "problem": BOTH}, indent=1).encode() + b"\n")


BOTH = "--json and -o - both write to standard output; give one"


def test_a_difference_says_where_it_is_drawn(blockdsl: Run) -> None:
    ran = blockdsl("diff", "a f", "a f f", "-o", "x.svg", "--json")
    assert (ran.status, ran.err) == (1, "wrote x.svg\n")
    assert json.loads(ran.out)["equal"] is False


def test_a_format_wins_over_the_name(blockdsl: Run) -> None:
    assert blockdsl("draw", "a f", "-o", "x", "--format", "svg") == (0, "wrote x\n", "")
    assert text("x").startswith("<svg ")


def test_a_png(blockdsl: Run) -> None:
    from PIL import Image

    assert blockdsl("draw", "(a f)*3", "-o", "x.png").status == 0
    picture = read(compile("(a f)*3", dim=512).to_svg())
    image = Image.open("x.png").convert("L")
    assert image.size == pytest.approx((2 * picture.width, 2 * picture.height), abs=2)
    # the title of a block is written, and dark
    area = picture.node("a0").texts[1].area
    words = image.crop(tuple(round(2 * side) for side in (area.left, area.top, area.right, area.bottom)))
    assert words.getextrema()[0] < 80


def test_pdf_without_its_extra(blockdsl: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    ran = blockdsl("draw", "a", "-o", "x.pdf")
    message = "PDF needs CairoSVG and the cairo library: python -m pip install 'xt-blocks[pdf]'"
    assert ran == (1, "", f"blockdsl draw: {message}\n")


def test_png_without_its_extra(blockdsl: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    ran = blockdsl("draw", "a", "-o", "x.png")
    assert ran == (1, "", "blockdsl draw: PNG needs resvg-py: python -m pip install 'xt-blocks[png]'\n")
    assert not Path("x.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "-o", "x"], "x: a picture's name ends in "),
        (["a", "-o", "x.gif"], "x.gif: a picture's name ends in .svg, .png"),
        (["a", "-o", "x.txt", "--unfold"], "--unfold: not for .txt files"),
        (["a", "-o", "x.txt", "--detail", "op", "--color", "kind"], "--detail and --color: not for .txt files"),
        (["run", "-o", "x.svg", "--dim", "8"], "run is a graph with all its settings; leave --dim out"),
        (["nothing.json", "-o", "x.svg"], "there is no file nothing.json"),
        (["run", "-o", "x.svg", "--dim", "0"], "run is a graph with all its settings; leave --dim out"),
        (["wrong.json", "-o", "x.svg"], "wrong.json: this is not a block graph in JSON"),
        (["./folder", "-o", "x.svg"], "./folder is a folder without a graph.json or a config.json"),
        (["run", "-o", "x.dot", "--overlay", "stream_norm", "--text", "x"], "--overlay: not for .dot files"),
        (["a", "-o", "nowhere/x.svg"], "cannot write nowhere/x.svg: No such file or directory"),
        (["folder", "-o", "x.svg"], "folder is a folder without a graph.json or a config.json"),
    ],
)
def test_what_cannot_be_drawn(blockdsl: Run, arguments: list[str], message: str) -> None:
    Path("run").mkdir()
    Path("run/graph.json").write_text(compile("a", dim=8, heads=1).to_json(), encoding="utf-8")
    Path("wrong.json").write_text("[]", encoding="utf-8")
    Path("folder").mkdir()
    ran = blockdsl("draw", *arguments)
    assert (ran.status, ran.out) == (1, "")
    assert message in ran.err
    assert not Path("x.svg").exists()


def test_every_form_names_a_method_or_is_left_out() -> None:
    from blockdsl import BlockGraph

    there = {suffix for suffix, form in draw.FORMS.items() if hasattr(BlockGraph, form.method)}
    assert there >= {".svg", ".png", ".html", ".txt"}
