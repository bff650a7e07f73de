"""A page read back without a browser: its elements, and the data that its script reads."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "input", "br", "img", "link"}
OPTIONAL = {"html", "body"}  # whose end the page writes


@dataclass
class Element:
    tag: str
    attrs: dict[str, str | None]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """The page's elements in order; fails where one is closed that is not open."""

    elements: list[Element] = field(default_factory=list)
    open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        element = Element(tag, dict(attrs))
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.open[-1].text += data

    def by_id(self, name: str) -> Element:
        (found,) = [element for element in self.elements if element.attrs.get("id") == name]
        return found

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(zlib.decompress(b64decode(self.by_id("data").text, validate=True)))


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


def unpacked(shapes: list[str], lines: list[list[int]]) -> str:
    """The picture, as the page's script puts it together."""
    last: dict[int, list[int]] = {}
    out = []
    for shape, *steps in lines:
        before = last.get(shape, [0] * len(steps))
        last[shape] = [old + step for old, step in zip(before, steps, strict=True)]
        first, *rest = shapes[shape].split("\x1f")
        numbers = [f"{value // 100}" if value % 100 == 0 else f"{value / 100:.10g}" for value in last[shape]]
        out.append(first + "".join(number + part for number, part in zip(numbers, rest, strict=True)))
    return "\n".join(out)
