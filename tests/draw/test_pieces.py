"""A picture in pieces: put together again it is the picture, and a page is told of each shape, and of what is as it was, once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import pytest

import blockdsl
from blockdsl.draw.forms import pieces as module
from blockdsl.draw.forms.pieces import NOTHING, Known, scene_pieces, shapes_of
from blockdsl.draw.forms.svg import svg
from blockdsl.draw.layout.picture import scene
from blockdsl.draw.layout.scene import Scene

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


def told(answer: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, Any]:
    """All that a page has with this answer, which may build on what it had before."""
    have = before if before is not None else {"shapes": [], "paths": [], "rows": {}}
    rows = {}
    for name, (start, end, between) in answer["rows"].items():
        row = have["rows"].get(name, [])
        rows[name] = [*row[:start], *between, *row[len(row) - end :]]
    lists = {name: have[name][: answer[name][0]] + answer[name][1] for name in ("shapes", "paths")}
    return {**answer, **lists, "rows": rows}


def known(page: dict[str, Any]) -> Known:
    return Known(page["name"], len(page["shapes"]), len(page["paths"]), page["picture"])


def put_together(picture: dict[str, Any]) -> list[str]:
    """Each rectangle, circle and text with its place, and each place where a line begins, as the pieces say."""
    found = []
    rows = dict(picture["rows"])
    for number, x, y, *_ in (*rows.pop("frames"), *rows.pop("boxes")):
        found += marks(picture["shapes"][number], x, y)
    found += marks(f"<g>{picture['upper']}</g>", 0, 0)
    for classes, strokes in rows.items():
        found += [f"{classes} {x:.1f} {y:.1f}" for x, y in begins(picture, strokes)]
    return sorted(found)


def begins(picture: dict[str, Any], strokes: Sequence[tuple[int, float, float]]) -> list[tuple[float, float]]:
    """Where strokes begin: a path of its own may move from where it counts from."""
    out = []
    for number, x, y in strokes:
        moved = re.match(r"m([-\d.]+) ([-\d.]+)", picture["paths"][number])
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
    picture = told(scene_pieces(own))
    assert put_together(picture) == sorted(marks(body(own), 0, 0))
    named = [" ".join(nodes) for _, _, _, *nodes in picture["rows"]["boxes"] if nodes]
    assert named == re.findall('data-nodes="([^"]*)"', body(own))


def body(own: Scene) -> str:
    text = re.sub("<style>.*?</style>", "", svg(own), flags=re.DOTALL)
    return text[text.index("<g transform") : text.rindex("</svg>")]


def test_a_picture_after_another_is_told_by_what_is_new() -> None:
    page = None
    for text in ("a f", "a f f", "a f(glu) f", *TEXTS, "a f", ""):
        own = drawn(text or "a f f")
        page = told(scene_pieces(own, NOTHING if page is None else known(page)), page)
        assert put_together(page) == sorted(marks(body(own), 0, 0)), text
        plain = told(scene_pieces(own))
        assert [box[1:] for box in page["rows"]["boxes"]] == [box[1:] for box in plain["rows"]["boxes"]], text


def test_of_what_is_as_in_the_last_picture_nothing_is_told() -> None:
    blocks = [f"f(mult={i})" for i in range(1, 311)]
    page = told(scene_pieces(drawn(" ".join(blocks[:300]))))
    same = scene_pieces(drawn(" ".join(blocks[:300])), known(page))
    assert all(between == [] for _, _, between in same["rows"].values())
    page, new = told(same, page), []
    for count in range(301, 311):  # a column's cut may move once
        answer = scene_pieces(drawn(" ".join(blocks[:count])), known(page))
        page = told(answer, page)
        new.append(len(answer["rows"]["boxes"][2]))
        assert len(page["rows"]["boxes"]) == count + 2
    assert sorted(new)[-2] < 5


def test_a_page_that_missed_an_answer_is_told_all_of_the_picture() -> None:
    page = told(scene_pieces(drawn("a f")))
    scene_pieces(drawn("a f f"), known(page))  # which never comes
    again = scene_pieces(drawn("a f f a"), known(page))
    assert put_together(told(again, page)) == sorted(marks(body(drawn("a f f a")), 0, 0))
    assert all((start, end) == (0, 0) for start, end, _ in again["rows"].values())


def test_a_shape_is_told_once() -> None:
    first = told(scene_pieces(drawn("(a f)*3")))
    assert len(first["shapes"]) == len({*first["shapes"]})
    same = scene_pieces(drawn("(a f)*3"), known(first))
    assert (same["name"], same["shapes"]) == (first["name"], (len(first["shapes"]), []))
    more = scene_pieces(drawn("(a f)*3 f(glu)"), known(first))
    assert more["shapes"][0] == len(first["shapes"])
    assert any("GLU" in shape for shape in more["shapes"][1])
    lost = scene_pieces(drawn("(a f)*3 f(glu)"), known(first))  # the answer before never came
    assert lost["shapes"] == more["shapes"]


def test_blocks_that_look_alike_are_one_shape() -> None:
    picture = told(scene_pieces(scene(blockdsl.compile("(a f)*50", dim=64).streams(), unfold=True)))
    blocks = [shape for shape in picture["shapes"] if 'class="block' in shape]
    assert len(blocks) == 2
    assert len([box for box in picture["rows"]["boxes"] if len(box) == 4]) == 100 + 2  # the input and the output


def test_a_page_that_is_not_known_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    first = scene_pieces(drawn("a f"))
    other = scene_pieces(drawn("a f"), Known("of a server that is gone", 500, 500, 1))
    assert other["name"] not in (first["name"], "of a server that is gone")
    assert other["shapes"][0] == other["paths"][0] == 0
    assert told(other)["rows"] == told(first)["rows"]
    monkeypatch.setattr(module, "MOST", 2)
    full = scene_pieces(drawn("a f f(glu)"), known(told(other)))
    assert full["name"] != other["name"]
    assert full["shapes"][0] == 0
    for _ in range(2 * module.PAGES):
        shapes_of("")
    assert len(module._pages) == module.PAGES
