"""Texts of the page have the contrast of WCAG AA on what they stand on, light and dark."""

from __future__ import annotations

import re

import pytest

from blockdsl.editor import page

from ..draw.test_contrast import contrast

ON = {
    "ground": ["text", "muted", "accent", "error", "warning", "kind", "option", "value", "word", "name", "comment"],
    "side": ["text", "muted", "error", "warning"],
    "raised": ["text", "muted", "error"],
    "button": ["text"],
    "soft": ["text", "muted", "kind", "option", "value", "word", "name"],
}


@pytest.mark.parametrize("theme", [":root", ":root.dark"])
def test_texts_stand_out(theme: str) -> None:
    css = page.file_content("page.css")[0].decode()
    block = css.partition(f"{theme} {{")[2].partition("}")[0]
    found = dict(re.findall(r"--(\w+): #([0-9a-f]{3,6});", block))
    colours = {
        name: f"#{digits if len(digits) == 6 else ''.join(2 * d for d in digits)}" for name, digits in found.items()
    }
    pairs = [(ground, text) for ground, texts in ON.items() for text in texts]
    faint = {pair: contrast(*map(colours.__getitem__, pair)) for pair in pairs}
    assert {pair: value for pair, value in faint.items() if value < 4.5} == {}
    for ground in ("ground", "side", "raised"):  # the line around what has the focus
        assert contrast(colours["accent"], colours[ground]) >= 3


def test_white_on_the_button_that_saves() -> None:
    css = page.file_content("page.css")[0].decode()
    for colour in re.findall(r"#save[^{]*\{[^}]*background: (#\w+)", css):
        assert contrast("#ffffff", colour) >= 4.5
