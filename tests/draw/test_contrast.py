"""Whatever is written or drawn can be seen: WCAG 2.2 AA, by the picture's own style sheet, light and dark.

Text has 4.5:1 to what is behind it. Lines, signs and the outlines of blocks have 3:1, as has all that carries meaning;
what only surrounds text that says the same, as the frame of a named stage and of an operation, is held to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest

import blockdsl
from blockdsl import Measurement
from blockdsl.draw.color.palette import HEATS

from ..built_in import BUILT_IN
from .reading import SVG

Element = Any
PATTERNS = (
    (" ".join(BUILT_IN), {"causal": True, "context": True, "rotary_pos_emb": True}),
    ("x: a>>1/2@t ^k f | (a(kv=k) f)*2 ((a f) & f)", {"residual_attn": True, "use_adaptive_rmsnorm": True}),
    ("^u a <u(gain) f <u(cat) a ^v f a(values=v) <u(soft) f", {"num_tokens": 9, "max_seq_len": 9}),
    ("(a f)*2", {"gate_residual": True, "pre_norm": False, "alibi_pos_bias": True}),
    ("(a f)*2", {"num_residual_streams": 2, "rel_pos_bias": True}),
)


class Rule(NamedTuple):
    selector: tuple[str, ...]  # compound selectors, each the parent of the next
    weight: tuple[int, ...]
    body: dict[str, str]


def rules(style: str) -> Iterator[Rule]:
    order = count()
    for selectors, body in re.findall(r"([^{}]+){([^{}]*)}", style):
        values = dict(part.split(":", 1) for part in body.split(";") if part)
        for selector in selectors.split(","):
            parts = tuple(selector.strip().removeprefix(".blockdsl ").split(">"))
            if ":" not in selector:
                weight = (selector.count("."), sum(part[0] != "." for part in parts), next(order))
                yield Rule(parts, weight, values)


def matches(chain: list[Element], selector: tuple[str, ...]) -> bool:
    if len(chain) < len(selector):
        return False
    for element, part in zip(reversed(chain), reversed(selector), strict=False):
        tag, *classes = part.split(".")
        own = (element.get("class") or "").split()
        if (tag and element.tag != SVG + tag) or not {*classes} <= {*own}:
            return False
    return True


class Sheet:
    """The style sheet of a picture in one theme."""

    def __init__(self, style: str, dark: bool) -> None:
        light, _, other = style.partition("@media (prefers-color-scheme:dark){")
        self.rules = sorted(rules(light + (other if dark else "")), key=lambda rule: rule.weight)

    def of(self, chain: list[Element], name: str, default: str = "") -> str:
        """A property of the last of a chain of elements from the root."""
        found = [rule.body[name] for rule in self.rules if name in rule.body and matches(chain, rule.selector)]
        return found[-1] if found else default


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted(map(luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


def blend(above: str, below: str, opacity: float) -> str:
    pairs = [(int(above[i : i + 2], 16), int(below[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a * opacity + b * (1 - opacity)):02x}" for a, b in pairs)


def chains(root: Element) -> Iterator[list[Element]]:
    """Each element with those around it, from the root."""
    pending = [[root]]
    while pending:
        chain = pending.pop(0)
        yield chain
        pending += [[*chain, child] for child in chain[-1]]


def holds(rect: Element, x: float, y: float) -> bool:
    left, top, wide, high = (float(rect.get(name, 0)) for name in ("x", "y", "width", "height"))
    return left <= x <= left + wide and top <= y <= top + high


def faults(svg: str, dark: bool) -> list[tuple[str, str, float]]:
    """What has too little contrast to something behind it: what it is, its class, how much it has."""
    root = ElementTree.fromstring(svg)
    sheet = Sheet(root.findtext(f"{SVG}style") or "", dark)
    grounds = [
        sheet.of(chain, "fill")
        for chain in chains(root)
        if chain[-1].get("class") == "ground" or (len(chain) > 1 and chain[-2].get("class") == "stage")
        if chain[-1].tag == f"{SVG}rect"
    ]
    found = []
    for chain in chains(root):
        element = chain[-1]
        name, what = (
            element.get("class") or chain[-2].get("class") if len(chain) > 1 else "",
            element.text or element.tag,
        )
        if element.tag == f"{SVG}text":
            behind = [background(sheet, chain, ground) for ground in grounds]
            wanted, seen = 4.5, sheet.of(chain, "fill")
        elif drawn(chain):
            behind, stroke = grounds, sheet.of(chain, "stroke", "none")
            wanted, seen = 3.0, sheet.of(chain, "fill") if stroke == "none" else stroke
        else:
            continue
        found += [(what, name, contrast(seen, each)) for each in behind if contrast(seen, each) < wanted]
    return found


def background(sheet: Sheet, chain: list[Element], ground: str) -> str:
    """What is behind a text: boxes of its group, some of which let through what is below."""
    text, fill = chain[-1], ground
    x = float(text.get("x")) + {"end": -3, "middle": 0}.get(text.get("text-anchor"), 3)
    for rect in chain[-2].findall(f"{SVG}rect"):
        own = [*chain[:-1], rect]
        if holds(rect, x, float(text.get("y")) - 4) and sheet.of(own, "fill") != "none":
            fill = blend(sheet.of(own, "fill"), fill, float(sheet.of(own, "fill-opacity", "1")))
    return fill


def drawn(chain: list[Element]) -> bool:
    """Whether an element is a line, a sign, or the outline of a block, of another node, or of a repeat."""
    tag, name = chain[-1].tag.removeprefix(SVG), chain[-1].get("class") or ""
    if tag in ("path", "circle"):
        return name != "core"
    return tag == "rect" and not name and chain[-2].get("class") != "stage"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("detail", ["block", "op"])
@pytest.mark.parametrize(("pattern", "settings"), PATTERNS)
def test_all_of_a_picture_can_be_seen(pattern: str, settings: dict[str, Any], detail: str, theme: str) -> None:
    graph = blockdsl.compile(pattern, **{"dim": 32, "heads": 2, **settings})
    assert faults(graph.to_svg(detail=detail), theme == "dark") == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_so_can_measurements_and_differences(theme: str) -> None:
    graph = blockdsl.compile(f"a*{len(HEATS)} f", dim=32)
    values = {"input": 2.5, **{f"a{i}": float(i) for i in range(len(HEATS))}}
    measured = graph.to_svg(overlay=Measurement("share", "s", values, "of all"))
    assert {*re.findall(r"heat-\d", measured.partition("</style>")[2])} == {f"heat-{i}" for i in range(len(HEATS))}
    other = blockdsl.compile("a f*3", dim=32, heads=4)
    columns = blockdsl.compile("a f(glu) | (a f)*3 a(heads=4)", dim=32).to_svg(columns=2)
    assert columns.count('class="number"') == 4
    for svg in (columns, measured, graph.to_svg(color="tied"), graph.diff(other).to_svg()):
        assert faults(svg, theme == "dark") == []


def test_the_measure_finds_what_is_pale() -> None:
    svg = blockdsl.compile("a f", dim=32).to_svg()
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert faults(
        svg.replace("text.note,", "text.other,").replace(".blockdsl text{fill:", ".blockdsl text{fill:#aaaaaa;x:"),
        False,
    )
    assert faults(svg.replace(".blockdsl .edge{stroke:", ".blockdsl .edge{stroke:#dddddd;x:"), False)
