"""The page in a real Chromium: opening it, and what a person does there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from ..draw.test_browser import Tab

PATIENCE = 20  # seconds until a test gives up on what the page should come to show


class Page(Tab):
    """The page to write patterns in."""

    def until(self, true: Callable[[], Any], what: str = "") -> Any:
        """Wait for it; returns what it gave."""
        end = time.monotonic() + PATIENCE
        while not (found := true()):
            assert time.monotonic() < end, f"the page never came to it: {what}"
            time.sleep(0.01)
        return found

    def settled(self) -> Page:
        """Once what is shown is of what is written."""
        self.until(lambda: self.js("document.body.dataset.state") == "shown", "the picture")
        return self

    @property
    def area(self) -> Any:
        return self.one("#text textarea")

    @property
    def text(self) -> str:
        return self.js("document.querySelector('#text textarea').value")

    def write(self, text: str, selector: str = "#text textarea") -> Page:
        """All of the text anew, by one paste."""
        code = "const a = document.querySelector(arguments[0]); a.focus(); a.select(); document.execCommand('insertText', false, arguments[1])"
        self.driver.execute_script(code, selector, text)
        return self.settled()

    def type(self, *keys: str) -> Page:
        """Key by key, where the focus is."""
        self.keys(*keys)
        return self

    def caret(self, at: int, end: int | None = None) -> None:
        code = "const a = document.querySelector('#text textarea'); a.focus(); a.setSelectionRange(arguments[0], arguments[1])"
        self.driver.execute_script(code, at, at if end is None else end)

    def marked(self, type: str, of: str = "#text") -> list[str]:
        """What is highlighted as this in a text."""
        code = """const pre = document.querySelector(arguments[1] + " pre");
        return [...CSS.highlights.get(arguments[0])].filter(r => r.startContainer === pre.firstChild)
            .sort((a, b) => a.startOffset - b.startOffset)
            .map(r => pre.firstChild.data.slice(r.startOffset, r.endOffset))"""
        return self.driver.execute_script(code, type, of)

    @property
    def problems(self) -> list[str]:
        return [one.text for one in self.all("#problems .place")]

    @property
    def status(self) -> str:
        return self.one("#status").text

    def resources(self) -> list[str]:
        return json.loads(self.js("JSON.stringify(performance.getEntriesByType('resource').map(e => e.name))"))
