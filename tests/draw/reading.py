"""An SVG picture read back, and what holds of every one. Text is measured in the font itself, not in the table."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
from PIL import ImageFont

from blockdsl import BlockGraph
from blockdsl.graph.graph import carried

SVG = "{http://www.w3.org/2000/svg}"
SIZES = {
    "title": 12.5,
    "note": 11,
    "value": 11,
    "code": 11,
    "mark": 9.5,
    "number": 9,
    "label": 11,
    "times": 12.5,
    "op": 10.5,
    "heading": 13,
    "name": 11,
    "facts": 12,
    "settings": 11,
    "change": 11,
    "badge": 13,
}
BOLD = {"title", "value", "label", "times", "heading", "name", "facts", "change", "badge"}
SLACK = 0.02  # of numbers that are written with two decimals


@dataclass(frozen=True)
class Area:
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Area) -> bool:
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return across > SLACK and down > SLACK

    def holds(self, other: Area) -> bool:
        return (
            self.left - SLACK <= other.left
            and self.top - SLACK <= other.top
            and other.right <= self.right + SLACK
            and other.bottom <= self.bottom + SLACK
        )

    def touches(self, point: tuple[float, float]) -> bool:
        """Whether a point is on the edge."""
        x, y = point
        within = self.left - SLACK <= x <= self.right + SLACK and self.top - SLACK <= y <= self.bottom + SLACK
        sides = (x - self.left, x - self.right, y - self.top, y - self.bottom)
        return within and min(map(abs, sides)) <= SLACK


@dataclass(frozen=True)
class Text:
    words: str
    area: Area


@dataclass(frozen=True)
class Node:
    """A group that stands for nodes."""

    name: str
    nodes: tuple[str, ...]
    classes: tuple[str, ...]
    rect: Area | None
    marks: tuple[Area, ...]
    circle: Area | None
    texts: tuple[Text, ...]
    tip: str

    @property
    def areas(self) -> list[Area]:
        own = [area for area in (self.rect, self.circle) if area]
        return own + [mark for mark in self.marks if not (self.rect and self.rect.holds(mark))]

    @property
    def words(self) -> list[str]:
        return [text.words for text in self.texts]

    @property
    def is_gain(self) -> bool:
        return "gain" in self.classes

    @property
    def is_nameless(self) -> bool:
        """Whether it stands for no node: a branch's gain, a label, where a skip is added."""
        return not {"gain", "label", "skip"}.isdisjoint(self.classes)


@dataclass(frozen=True)
class Line:
    role: str
    source: str
    target: str
    points: tuple[tuple[float, float], ...]
    way: tuple[tuple[float, float], ...]  # points along it, close to each other where it is curved
    curved: bool  # from layer to layer; else it runs upright and level
    cut: bool  # what it goes on as is elsewhere


@dataclass(frozen=True)
class Frame:
    role: str
    value: int
    area: Area
    labels: tuple[Text, ...]

    @property
    def label(self) -> Text:
        """All lines as one."""
        sides = [[getattr(text.area, side) for text in self.labels] for side in ("left", "top", "right", "bottom")]
        area = Area(min(sides[0]), min(sides[1]), max(sides[2]), max(sides[3]))
        return Text("".join(text.words for text in self.labels), area)


@dataclass(frozen=True)
class Picture:
    width: float
    height: float
    nodes: list[Node]
    lines: list[Line]
    frames: list[Frame]
    keys: list[Text]
    labels: list[Text]
    head: list[Text]
    numbers: list[Text]
    title: str

    def node(self, name: str) -> Node:
        (found,) = [node for node in self.nodes if node.name == name and not node.is_nameless]
        return found

    def of(self, *classes: str) -> list[Node]:
        return [node for node in self.nodes if {*classes} <= {*node.classes}]

    def edges(self, *roles: str) -> set[tuple[str, str]]:
        return {(line.source, line.target) for line in self.lines if line.role in roles and line.source != line.target}

    def times(self, node: Node) -> int:
        """The product of the repeats that a node is in."""
        area = node.rect or node.circle
        assert area
        return prod(frame.value for frame in self.frames if frame.role == "repeat" and frame.area.holds(area))


def read(svg: str) -> Picture:
    root = ElementTree.fromstring(svg)
    assert root.get("class") == "blockdsl"
    _, _, width, height = map(float, root.get("viewBox", "").split())
    (body,) = root.findall(f"{SVG}g")
    dx, dy = map(float, re.findall(r"[-\d.]+", body.get("transform", "")))
    nodes, lines, frames, keys, labels, head, numbers = [], [], [], [], [], [], []
    for element in body:
        classes = tuple((element.get("class") or "").split())
        if element.get("data-node") is not None or element.get("data-of") is not None:
            nodes.append(_node(element, classes, dx, dy))
        elif "core" in classes:
            continue  # the light middle of a line that stands for several
        elif "edge" in classes:
            points = _points(element.get("d", ""), dx, dy)
            way = _way(element.get("d", ""), dx, dy)
            lines.append(
                Line(
                    classes[1],
                    element.get("data-from", ""),
                    element.get("data-to", ""),
                    points,
                    way,
                    "C" in element.get("d", ""),
                    "cut" in classes,
                )
            )
        elif classes[0] in ("stage", "repeat"):
            value = int(element.get("data-stage" if classes[0] == "stage" else "data-times", ""))
            rect = element.findall(f"{SVG}rect")[0]  # a repeat has one more behind its number
            written = [_text(label, dx, dy) for label in element.findall(f"{SVG}text")]
            frames.append(Frame(classes[0], value, _rect(rect, dx, dy), tuple(written)))
        elif classes[0] == "key":
            keys += [_text(text, dx, dy) for text in element.findall(f"{SVG}text")]  # none inside a scale
        elif classes == ("head",) and element.tag == f"{SVG}g":
            head += [_text(line, dx, dy) for line in element.findall(f"{SVG}text")]
        elif classes == ("number",):
            numbers.append(_text(element, dx, dy))
        elif element.tag == f"{SVG}text":
            labels.append(_text(element, dx, dy))
        else:
            assert classes[0] == "head", classes
    title = root.findtext(f"{SVG}title") or ""
    return Picture(width, height, nodes, lines, frames, keys, labels, head, numbers, title)


def _node(group: Any, classes: tuple[str, ...], dx: float, dy: float) -> Node:
    rects = [(_rect(rect, dx, dy), rect.get("class")) for rect in group.findall(f"{SVG}rect")]
    circle = None
    for found in group.findall(f"{SVG}circle"):
        x, y, r = (float(found.get(name)) for name in ("cx", "cy", "r"))
        circle = Area(x - r + dx, y - r + dy, x + r + dx, y + r + dy)
    return Node(
        group.get("data-node") or group.get("data-of").split(" ")[0],
        tuple((group.get("data-nodes") or group.get("data-of")).split(" ")),
        classes,
        next((area for area, mark in rects if mark is None), None),
        tuple(area for area, mark in rects if mark),
        circle,
        tuple(_text(text, dx, dy) for text in group.findall(f"{SVG}text")),
        group.findtext(f"{SVG}title") or "",
    )


def _rect(rect: Any, dx: float, dy: float) -> Area:
    x, y, width, height = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
    return Area(x + dx, y + dy, x + width + dx, y + height + dy)


def _text(text: Any, dx: float, dy: float) -> Text:
    role, words = text.get("class"), text.text
    size = float((re.findall(r"font-size:([\d.]+)px", text.get("style") or "") or [SIZES[role]])[0])
    wide = font(role).getlength(words) / 10 * size / SIZES[role]
    x, y = float(text.get("x")) + dx, float(text.get("y")) + dy
    left = x - {None: 0, "middle": wide / 2, "end": wide}[text.get("text-anchor")]
    return Text(words, Area(left, y - 0.76 * size, left + wide, y + 0.24 * size))


@cache
def font(role: str) -> Any:
    """Ten times as large, for whole pixels to say enough."""
    name = (
        "DejaVuSansMono-Bold"
        if role == "name"
        else "DejaVuSansMono"
        if role == "code"
        else "DejaVuSans-Bold"
        if role in BOLD
        else "DejaVuSans"
    )
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / f"{name}.ttf"), SIZES[role] * 10)


def _points(path: str, dx: float, dy: float) -> tuple[tuple[float, float], ...]:
    """The ends of a path's parts; a corner is its control point."""
    points = []
    for letter, numbers in re.findall(r"([MLQC])([^MLQC]*)", path):
        values = [float(value) for value in numbers.split()]
        pairs = [(values[i] + dx, values[i + 1] + dy) for i in range(0, len(values), 2)]
        points += pairs if letter != "C" else pairs[-1:]
    return tuple(points)


def _way(path: str, dx: float, dy: float) -> tuple[tuple[float, float], ...]:
    """A path as a polygon: curves in sixteen pieces."""
    way: list[tuple[float, float]] = []
    for letter, numbers in re.findall(r"([MLQC])([^MLQC]*)", path):
        values = [float(value) for value in numbers.split()]
        ends = [(values[i] + dx, values[i + 1] + dy) for i in range(0, len(values), 2)]
        if letter in "ML":
            way += ends
            continue
        controls = [way[-1], *ends]
        for step in range(1, 17):
            way.append(_bezier(controls, step / 16))
    return tuple(way)


def _bezier(controls: list[tuple[float, float]], t: float) -> tuple[float, float]:
    while len(controls) > 1:
        controls = [(a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])) for a, b in itertools.pairwise(controls)]
    return controls[0]


# What holds of every picture --------------------------------------------------------------------------------------


def check(svg: str, *graphs: BlockGraph, unfolded: bool = False, names: tuple[str, ...] = ()) -> Picture:
    """Judge a picture of graphs by its structure; `names` are those of graphs side by side."""
    picture = read(svg)
    prefixes = [f"{name}." for name in names] or [""]
    check_nodes(picture, graphs, prefixes)
    check_places(picture)
    check_ends(picture)
    check_ways(picture)
    check_lanes(picture)
    check_cuts(picture)
    if not names:
        check_edges(picture, graphs[0], unfolded)
    return picture


def check_nodes(picture: Picture, graphs: tuple[BlockGraph, ...], prefixes: list[str]) -> None:
    """Each node of the graphs is drawn once; a block as often as its repeats say."""
    drawn = Counter(node for group in picture.nodes if not group.is_nameless for node in group.nodes)
    wanted = Counter(f"{p}{node}" for graph, p in zip(graphs, prefixes, strict=True) for node in graph.nx)
    fed = {f"{p}context" for p in prefixes[1:]}  # what the graph before it gives
    assert drawn - wanted == Counter()
    assert {*(wanted - drawn)} <= fed
    for group in picture.nodes:
        assert group.nodes[0] == group.name
        if "block" in group.classes:
            assert len(group.nodes) == picture.times(group), group.name


def check_places(picture: Picture) -> None:
    page = Area(0, 0, picture.width, picture.height)
    areas = [(area, node) for node in picture.nodes for area in node.areas]
    for (area, node), (other, second) in itertools.combinations(areas, 2):
        assert node is second or not area.overlaps(other), (node.name, second.name)
    for node in picture.nodes:
        for text in node.texts:
            if "label" in node.classes:  # beside its dot, where nothing else is
                assert not any(text.area.overlaps(area) for area, _ in areas), text
                assert not any(text.area.overlaps(other.label.area) for other in picture.frames), text
            else:
                assert any(area.holds(text.area) for area in node.areas), (node.name, text)
        for text, other_text in itertools.combinations(node.texts, 2):
            assert not text.area.overlaps(other_text.area), (node.name, text.words, other_text.words)
        for area in node.areas:
            assert page.holds(area)
    for line in picture.lines:
        assert all(page.holds(Area(x, y, x, y)) for x, y in line.points), line
    for frame in picture.frames:
        assert page.holds(frame.area)
        assert page.holds(frame.label.area)
        for area, node in areas:
            assert frame.area.holds(area) or not frame.area.overlaps(area), (frame, node.name)
            assert not frame.label.area.overlaps(area), (frame, node.name)
        for other_frame in picture.frames:
            inside = frame.area.holds(other_frame.area) or other_frame.area.holds(frame.area)
            assert inside or not frame.area.overlaps(other_frame.area)
            assert other_frame is frame or not frame.label.area.overlaps(other_frame.label.area)
    for text, other_text in itertools.combinations(picture.head + picture.labels, 2):
        assert not text.area.overlaps(other_text.area), (text.words, other_text.words)
    for text in picture.keys + picture.labels + picture.numbers + picture.head:
        assert page.holds(text.area)
        assert not any(text.area.overlaps(area) for area, _ in areas)
    for text, other_text in itertools.combinations(picture.labels + picture.numbers, 2):
        assert not text.area.overlaps(other_text.area), (text, other_text)
    for text in picture.labels + picture.numbers:
        inner = Area(text.area.left + 1, text.area.top + 2, text.area.right - 1, text.area.bottom - 2)
        for line in picture.lines:
            for a, b in itertools.pairwise(line.points):
                piece = Area(min(a[0], b[0]) - 0.1, min(a[1], b[1]) - 0.1, max(a[0], b[0]) + 0.1, max(a[1], b[1]) + 0.1)
                assert not inner.overlaps(piece), (text, line)
    for text, other_text in itertools.combinations(picture.keys, 2):
        assert not text.area.overlaps(other_text.area)


def check_ends(picture: Picture) -> None:
    """Every edge ends on its box, and starts on its box or on the rail that leaves it."""
    own = {}
    for node in picture.nodes:
        own.setdefault(node.name, []).extend(node.areas)
    meets = [node.circle for node in picture.nodes if {"gain", "skip"} & {*node.classes} and node.circle]
    for line in picture.lines:
        start, end = line.points[0], line.points[-1]
        if any(circle.touches(start) for circle in meets):
            continue  # from what a branch gained to the sum of it, or on from where a skip is added
        if line.cut:
            continue  # see check_cuts
        turn = {"rail": "branch", "branch": "rail"}.get(line.role)  # a block in the stream's place ends and begins it
        turns = [other for other in picture.lines if other.role == turn and line.target in (other.source, other.target)]
        ends = any(area.touches(end) for area in own[line.target]) or any(_on(end, other) for other in turns)
        rails = [rail for rail in picture.lines if rail.role == "rail" and rail.source == line.source]
        rails += [other for other in picture.lines if other.role == turn and line.source == other.source]
        on_rail = any(_on(start, rail) for rail in rails if rail is not line)
        starts = on_rail or any(area.touches(start) for area in own[line.source])
        if line.role == "rail" and line.source == line.target:  # begins after a gap, or is the end of a way
            assert starts or ends, line
        else:
            assert starts, line
            assert ends, line


def check_cuts(picture: Picture) -> None:
    """A line that is cut ends on its box; the name at its other end is at its other part too, or on its source."""
    parts: dict[tuple[str, str], list[set[str]]] = {}
    for line in picture.lines:
        if line.cut:
            names = [_names_at(picture, line.points[end]) for end in (0, -1)]
            assert [bool(name) for name in names] in ([True, False], [False, True]), line
            box = line.points[-1] if names[0] else line.points[0]
            own = [n for n in picture.nodes if (line.target if names[0] else line.source) in n.nodes]
            assert any(area.touches(box) for node in own for area in node.areas) or any(
                _on(box, o) for o in picture.lines if o is not line
            )
            parts.setdefault((line.role, line.source), []).append(names[0] or names[1])
    for (_, source), names in parts.items():
        shown = [{*node.words} for node in picture.nodes if source in node.nodes]
        for i, own in enumerate(names):
            assert any(own & other for other in (*names[:i], *names[i + 1 :], *shown)), (source, names, shown)


def _names_at(picture: Picture, point: tuple[float, float]) -> set[str]:
    """The names that stand beside a point, each without its words."""
    x, y = point
    beside = [
        text.words.partition(":")[0].split(", ")
        for text in picture.labels
        if text.area.top - 7 < y < text.area.bottom + 7 and min(abs(x - text.area.left), abs(x - text.area.right)) < 5
    ]
    return {name for names in beside for name in names}


def check_ways(picture: Picture) -> None:
    """No edge runs through a box."""
    rects = [(node.name, node.rect) for node in picture.nodes if node.rect]
    for line in picture.lines:
        for a, b in itertools.pairwise(line.way):
            piece = Area(min(a[0], b[0]) - 0.1, min(a[1], b[1]) - 0.1, max(a[0], b[0]) + 0.1, max(a[1], b[1]) + 0.1)
            for name, rect in rects:
                inner = Area(rect.left + 0.5, rect.top + 0.5, rect.right - 0.5, rect.bottom - 0.5)
                assert not inner.overlaps(piece), (name, line)


def check_lanes(picture: Picture) -> None:
    """What comes from one source does not run along the line of another."""
    upright: dict[float, list[tuple[float, float, tuple[str, str]]]] = {}
    for line in picture.lines:
        if line.curved:
            continue
        of = ("stream", "") if line.role in ("rail", "branch") else (line.role, line.source)
        for (x, y), (to_x, to_y) in itertools.pairwise(line.points):
            if abs(x - to_x) < SLACK and abs(y - to_y) > 1:
                upright.setdefault(round(x, 1), []).append((min(y, to_y), max(y, to_y), of))
    for runs in upright.values():
        for (low, high, of), (other_low, other_high, other) in itertools.combinations(runs, 2):
            assert of == other or min(high, other_high) - max(low, other_low) < 1, (of, other)


def _on(point: tuple[float, float], line: Line) -> bool:
    return any(
        min(a[0], b[0]) - SLACK <= point[0] <= max(a[0], b[0]) + SLACK
        and min(a[1], b[1]) - SLACK <= point[1] <= max(a[1], b[1]) + SLACK
        for a, b in itertools.pairwise(line.points)
    )


def check_edges(picture: Picture, graph: BlockGraph, unfolded: bool) -> None:
    """What is drawn is what the graph has, between the boxes that stand for its nodes."""
    box = {node: group.name for group in picture.nodes if not group.is_nameless for node in group.nodes}
    wanted: dict[str, set[tuple[str, str]]] = {}
    inner: dict[str, set[tuple[str, str]]] = {}
    for source, target, attrs in graph.nx.edges(data=True):
        for what in carried(attrs):
            role = "stream" if what in ("base", "read") else what
            ends = box[source], box[target]
            (inner if ends[0] == ends[1] else wanted).setdefault(role, set()).add(ends)
    for role in ("position", "scores", "kv", "values"):
        assert picture.edges(role) == wanted.get(role, set()), role
        loops = {
            (line.source, line.target) for line in picture.lines if line.role == role and line.source == line.target
        }
        assert loops == inner.get(role, set())
    labels = [node for node in picture.nodes if "label" in node.classes]
    for roles, what in ((("rail", "branch", "read"), "stream"), (("context",), "context")):
        all_of = wanted.get(what, set())
        found: set[tuple[str, str]] = set()
        for line in picture.lines:
            if line.role in roles:
                # where a skip is added before a copy that is not the first, this copy has its name
                source, target = box[line.source], box[line.target]
                # a label stands for all its copies, of which another may be the one that is read
                copies = [box[n] for label in labels if box[label.name] == source for n in label.nodes]
                read = [copy for copy in copies if (copy, target) in all_of and line.role in ("read", "context")]
                found.add((read[0] if read and (source, target) not in all_of else source, target))
        found = {ends for ends in found if ends[0] != ends[1]}
        if unfolded:
            assert found == all_of
        else:
            assert found <= all_of
            assert {target for _, target in found} == {target for _, target in all_of}


def node_texts(picture: Picture) -> dict[str, list[str]]:
    return {node.name: node.words for node in picture.nodes}
