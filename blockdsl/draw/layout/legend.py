"""What is below a picture: the colours, and those of its marks that explain themselves to nobody."""

from __future__ import annotations

from collections.abc import Sequence

from ..color.heat import GREY, Heat
from ..color.palette import HEATS
from ..widths import wrapped
from ..words.told import SIGNS as MARKS
from ..words.told import STATUSES
from .face import GAIN
from .scene import RADIUS, Key, Rect, Scene, Text, size, text_width

SIGNS = {
    "⋈": "a GRU cell in place of the sum",
    "≡": "mixes the residual streams",
    GAIN: "what this branch added",
    "": "read further down",
}
LINES = {
    "read": "added from further up",
    "scores": "scores that a later block adds to its own",
    "kv": "keys and values for a later block",
    "values": "values for a later block",
    "many": "several added from further up",
}
MEANINGS = {"same": "alike"}
BESIDE = 20.0  # from one entry to the next, and above the first
LINE, STEP = 15.0, 22.0  # of the words above a scale; the width of a colour in it
SCALE_LEAST = 260.0  # the width of those words in a narrow picture


def add_legend(
    scene: Scene, colors: tuple[tuple[str, str], ...], statuses: Sequence[str] = (), heat: Heat | None = None
) -> None:
    """Explain a scene's colours, each its class and its meaning, and its unusual marks, below it.

    Args:
        statuses: those of STATUSES that its nodes have.
        heat: the measurement on its boxes, which has a scale above all else.
    """
    if heat is not None:
        _add_scale(scene, heat)
        grey = any(box.look.type == "block" and box.look.hue == GREY for box in scene.boxes)
        colors = (*colors, *([(GREY, "not measured")] if grey else []))
    looks = {box.look for box in scene.boxes}
    signs = {look.sign for look in looks if look.join}
    signs |= {text.text for look in looks for text in look.texts if text.text == GAIN}
    lines = {"many" if edge.many else edge.role for edge in scene.edges} & {*LINES}
    swatch = Rect(0, 0, 30 if lines else 2 * RADIUS, 2 * RADIUS)
    extent = scene.extent
    keys = [Key(hue, swatch, _beside(swatch, meaning), sign="") for hue, meaning in colors]
    keys += [
        Key(STATUSES[status], swatch, _beside(swatch, MEANINGS.get(status, status)), sign=MARKS.get(status, ""))
        for status in statuses
    ]
    keys += [Key("", swatch, _beside(swatch, meaning), sign=sign) for sign, meaning in SIGNS.items() if sign in signs]
    keys += [Key("", swatch, _beside(swatch, meaning), line=role) for role, meaning in LINES.items() if role in lines]
    for i, key in enumerate(keys):
        scene.keys.append(key.moved(extent.x, extent.bottom + BESIDE * (i + 1)))


def _add_scale(scene: Scene, heat: Heat) -> None:
    """What was measured, and below it the colours from the least to the most."""
    own, extent, high = heat.measurement, scene.extent, 2 * RADIUS
    words = wrapped(own.legend().split(" · "), size("note"), max(extent.width, SCALE_LEAST), " · ")
    y = extent.bottom + BESIDE + RADIUS
    for line in words:
        scene.labels.append(Text(extent.x, y, line, "note"))
        y += LINE
    if not own.values:
        return
    (least, most), top = heat.ends, y - RADIUS - 2
    if least == most:
        swatch = Rect(0, 0, high, high)
        scene.keys.append(
            Key("heat-0", swatch, _beside(swatch, f"all {own.said(least)}"), sign="").moved(extent.x, top)
        )
        return
    labels = [Text(0, 10.5, "", "note")] * len(HEATS)
    labels[0] = Text(0, 10.5, f"least {own.said(least)}", "note")
    x = text_width(labels[0].text, "note") + 8
    labels[-1] = Text(x + len(HEATS) * STEP + 8, 10.5, f"most {own.said(most)}", "note")
    for i, label in enumerate(labels):
        scene.keys.append(Key(f"heat-{i}", Rect(x + i * STEP, 0, STEP, high), label, sign="").moved(extent.x, top))


def _beside(swatch: Rect, meaning: str) -> Text:
    return Text(swatch.width + 8, 10.5, meaning, "note")
