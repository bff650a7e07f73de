"""A picture in pieces: put together again it is the picture, and a page is told of a shape once."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

import blockdsl
from blockdsl.draw.forms import pieces as module
from blockdsl.draw.forms.pieces import scene_pieces, shapes_of
from blockdsl.draw.forms.svg import svg
from blockdsl.draw.layout.picture import scene

from .reading import SVG

TEXTS = [
    "(a f)*3",
    "a^x f <x f | (c f) & a",
    "set heads=4, rotary_pos_emb; stem: f(glu) a@t | (a@t f/2)*4",
    "(^u a f)*3 (<u(pop) a f)*3",
    " ".join(f"f^l{i}" for i in range(40)) + " " + " ".join(f"<l{i} a" for i in range(40)),
]


def drawn(text: str) -> Any:
    return scene(blockdsl.compile(text, dim=64).streams())


def put_together(picture: dict[str, Any]) -> list[str]:
    """Each rectangle, circle and text with its place, and each place where a line begins, as the pieces say."""
    found = []
    for number, x, y, *_ in (*picture["frames"], *picture["boxes"]):
        found += marks(picture["shapes"][number], x, y)
    found += marks(f"<g>{picture['upper']}</g>", 0, 0)
    for classes, strokes in picture["lines"]:
        found += [f"{classes} {x:.1f} {y:.1f}" for x, y in begins(picture, strokes)]
    return sorted(found)


def begins(picture: dict[str, Any], strokes: list[float]) -> list[tuple[float, float]]:
    """Where strokes begin: a path of its own may move from where it counts from."""
    out = []
    for number, x, y in zip(strokes[::3], strokes[1::3], strokes[2::3], strict=True):
        moved = re.match(r"m([-\d.]+) ([-\d.]+)", picture["paths"][int(number)])
        dx, dy = map(float, moved.groups()) if moved else (0.0, 0.0)
        out.append((x + dx, y + dy))
    return out


def marks(text: str, dx: float, dy: float) -> list[str]:
    found = []
    for element in ElementTree.fromstring(text).iter():
        tag = element.tag.removeprefix(SVG)
        at = element.get("x", element.get("cx")), element.get("y", element.get("cy"))
        if None not in at:
            x, y = float(at[0] or 0) + dx, float(at[1] or 0) + dy
            size = element.get("width"), element.get("height"), element.text
            found.append(f"{tag} {element.get('class')} {x:.1f} {y:.1f} {size}")
        elif "edge" in (classes := element.get("class") or "") or classes.startswith(("head ", "core")):
            begin = re.match(r"M([-\d.]+) ([-\d.]+)", element.get("d") or "")
            if begin:
                found.append(f"{classes} {float(begin[1]) + dx:.1f} {float(begin[2]) + dy:.1f}")
    return found


@pytest.mark.parametrize("text", TEXTS)
def test_put_together_they_are_the_picture(text: str) -> None:
    own = drawn(text)
    picture = scene_pieces(own)
    text = re.sub("<style>.*?</style>", "", svg(own), flags=re.DOTALL)
    body = text[text.index("<g transform") : text.rindex("</svg>")]
    assert put_together(picture) == sorted(marks(body, 0, 0))
    named = [" ".join(nodes) for _, _, _, *nodes in picture["boxes"] if nodes]
    assert named == re.findall('data-nodes="([^"]*)"', body)


def test_a_shape_is_told_once() -> None:
    first = scene_pieces(drawn("(a f)*3"))
    assert len(first["shapes"]) == len({*first["shapes"]})
    same = scene_pieces(drawn("(a f)*3"), first["name"], len(first["shapes"]))
    assert (same["name"], same["shapes"]) == (first["name"], [])
    assert same["boxes"] == first["boxes"]
    more = scene_pieces(drawn("(a f)*3 f(glu)"), first["name"], len(first["shapes"]))
    assert more["first"] == len(first["shapes"])
    assert any("GLU" in shape for shape in more["shapes"])
    lost = scene_pieces(drawn("(a f)*3 f(glu)"), first["name"], len(first["shapes"]))  # the answer before never came
    assert lost["shapes"] == more["shapes"]


def test_blocks_that_look_alike_are_one_shape() -> None:
    picture = scene_pieces(scene(blockdsl.compile("(a f)*50", dim=64).streams(), unfold=True))
    blocks = [shape for shape in picture["shapes"] if 'class="block' in shape]
    assert len(blocks) == 2
    assert len([box for box in picture["boxes"] if len(box) == 4]) == 100 + 2  # the input and the output


def test_a_page_that_is_not_known_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    first = scene_pieces(drawn("a f"))
    other = scene_pieces(drawn("a f"), "of a server that is gone", 500)
    assert other["name"] not in (first["name"], "of a server that is gone")
    assert other["first"] == 0
    monkeypatch.setattr(module, "MOST", 2)
    full = scene_pieces(drawn("a f f(glu)"), other["name"], len(other["shapes"]))
    assert full["name"] != other["name"]
    assert full["first"] == 0
    for _ in range(2 * module.PAGES):
        shapes_of("")
    assert len(module._pages) == module.PAGES
