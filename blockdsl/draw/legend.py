"""What is below a picture: the colours, and those of its marks that explain themselves to nobody."""

from __future__ import annotations

from collections.abc import Sequence

from .scene import RADIUS, Key, Rect, Scene, Text
from .told import SIGNS as MARKS
from .told import STATUSES

SIGNS = {
    "⋈": "a GRU cell in place of the sum",
    "≡": "mixes the residual streams",
    "Δ": "what this branch added",
    "": "read further down",
}
LINES = {
    "read": "the stream of further up",
    "scores": "scores that a later block adds to its own",
    "kv": "keys and values for a later block",
    "values": "values for a later block",
    "many": "several streams of further up",
}
MEANINGS = {"same": "alike"}
BESIDE = 20.0  # from one entry to the next, and above the first


def add_legend(scene: Scene, colors: tuple[tuple[str, str], ...], statuses: Sequence[str] = ()) -> None:
    """Explain a scene's colours, each its class and its meaning, and its unusual marks, below it.

    Args:
        statuses: those of STATUSES that its nodes have.
    """
    signs = {box.sign for box in scene.boxes if box.join}
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


def _beside(swatch: Rect, meaning: str) -> Text:
    return Text(swatch.width + 8, 10.5, meaning, "note")
