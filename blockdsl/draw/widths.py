"""How wide a text is, without a font at hand.

The table is that of DejaVu Sans, wider than the fonts that systems have for their own texts; what fits in it fits in
those too.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Each role of a text: its size, whether it is bold, whether monospace.
FONTS = {
    "title": (12.5, True, False),
    "note": (11.0, False, False),
    "value": (11.0, True, False),
    "code": (11.0, False, True),
    "mark": (9.5, False, False),
    "number": (9.0, False, False),
    "label": (11.0, True, False),
    "times": (12.5, True, False),
    "name": (11.0, True, True),
    "op": (10.5, False, False),
    "heading": (13.0, True, False),
    "facts": (12.0, True, False),
    "settings": (11.0, False, False),
    "change": (11.0, True, False),
    "badge": (13.0, True, False),
}

# Thousandths of the font's size, of the signs from the space to the tilde.
# fmt: off
_REGULAR = (
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636, 636, 636, 636, 636,
    636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656, 557, 863,
    748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838, 500, 500, 613, 635, 550, 635,
    615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636,
    337, 636, 838,
)
_BOLD = (
    348, 456, 521, 838, 696, 1002, 872, 306, 457, 457, 523, 838, 380, 415, 380, 365, 696, 696, 696, 696, 696, 696, 696,
    696, 696, 696, 400, 400, 838, 838, 838, 580, 1000, 774, 762, 734, 830, 683, 683, 821, 837, 372, 372, 775, 637, 995,
    837, 850, 733, 850, 770, 720, 682, 812, 774, 1103, 771, 724, 725, 457, 365, 457, 838, 500, 500, 675, 716, 593, 716,
    678, 435, 716, 712, 343, 343, 665, 343, 1042, 712, 687, 716, 716, 493, 595, 478, 712, 652, 924, 645, 652, 582, 712,
    365, 712, 838,
)
# fmt: on
_OTHERS = {"·": 380, "×": 838, "→": 838, "−": 838, "Δ": 774, "–": 500}
_MONOSPACE = 602
_WIDEST = 1150  # of a sign that is in no table


@lru_cache(1 << 14)
def width(text: str, size: float, bold: bool = False, monospace: bool = False) -> float:
    """Of one line, in the unit of `size`."""
    if monospace:
        return sum(_MONOSPACE if char.isascii() else _WIDEST for char in text) * size / 1000
    table = _BOLD if bold else _REGULAR
    return sum(_of(char, table) for char in text) * size / 1000


def _of(char: str, table: tuple[int, ...]) -> int:
    place = ord(char) - 32
    return table[place] if 0 <= place < len(table) else _OTHERS.get(char, _WIDEST)


def wrapped(words: list[str], size: float, most: float, between: str = ", ", bold: bool = False) -> list[str]:
    """Words joined to lines of at most this width; a word that is wider is broken."""
    lines: list[str] = []
    for word in words:
        joined = lines[-1] + between + word if lines else word
        if lines and width(joined + between, size, bold) <= most:
            lines[-1] = joined
        else:
            if lines and between == ", ":
                lines[-1] += ","
            lines += broken(word, size, most, bold)
    return lines


def cut_to_fit(text: str, size: float, most: float, bold: bool = False) -> str:
    """The text, with its end left out where it is wider than `most`."""
    if width(text, size, bold) <= most:
        return text
    while text and width(text + "…", size, bold) > most:
        text = text[:-1]
    return text + "…"


def broken(text: str, size: float, most: float, bold: bool = True) -> list[str]:
    """A name in lines of at most this width, broken after spaces, underscores and hyphens; a longer word is cut.

    A number stays with what is before it, and a factor with its sign.
    """
    if width(text, size, bold) <= most:
        return [text]
    lines = [""]
    for word in re.findall(r"(?:[×=] | (?=\d)|[^\s_-]|-(?![a-z]))+(?:[\s_]+|-)?|[\s_-]+", text):
        if lines[-1] and width((lines[-1] + word).rstrip(), size, bold) > most:
            lines.append("")
        lines[-1] += word
    return [cut_to_fit(line.rstrip(), size, most, bold) for line in lines]
