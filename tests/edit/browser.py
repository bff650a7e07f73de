"""The page in a real Chromium: opening it, and what a person does there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium.common.exceptions import StaleElementReferenceException

from ..draw.test_browser import Tab

PATIENCE = 60  # seconds until a test gives up on what the page should come to show


class Page(Tab):
    """The page to write patterns in.

    Attributes:
        name: that its exports have; downloads: where they go.
    """

    def __init__(self, driver: Any, name: str, downloads: Path) -> None:
        super().__init__(driver)
        self.name, self.downloads = name, downloads

    def until(self, true: Callable[[], Any], what: str = "") -> Any:
        """Wait for it; returns what it gave."""
        end = time.monotonic() + PATIENCE
        while not (found := self._tried(true)):
            assert time.monotonic() < end, f"the page never came to it: {what}"
            time.sleep(0.01)
        return found

    @staticmethod
    def _tried(true: Callable[[], Any]) -> Any:
        try:
            return true()
        except StaleElementReferenceException:  # what it looked at was written anew meanwhile
            return None

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
        code = """const pre = document.querySelector(arguments[1] + " pre"), found = [];
        for (const { startContainer, startOffset, endContainer, endOffset } of CSS.highlights.get(arguments[0])) {
            if (!pre.contains(startContainer)) continue;
            const range = document.createRange();
            range.setStart(startContainer, startOffset);
            range.setEnd(endContainer, endOffset);
            found.push(range);
        }
        return found.sort((a, b) => a.compareBoundaryPoints(Range.START_TO_START, b)).map(range => range.toString())"""
        return self.driver.execute_script(code, type, of)

    @property
    def problems(self) -> list[str]:
        return [one.text for one in self.all("#problems .place")]

    @property
    def status(self) -> str:
        return self.one("#status").text

    def resources(self) -> list[str]:
        return json.loads(self.js("JSON.stringify(performance.getEntriesByType('resource').map(e => e.name))"))


def wide(driver: Any, width: int, height: int = 800) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def opened(driver: Any, address: str, downloads: Path, name: str) -> Page:
    """The page at an address, at 1280 pixels in light."""
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    features = {"prefers-reduced-motion": "reduce", "prefers-color-scheme": "light"}
    emulated = [{"name": name, "value": value} for name, value in features.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": emulated})
    wide(driver, 1280)
    driver.get(address)
    return Page(driver, name, downloads).settled()


def closed(page: Page) -> None:
    """Nothing is left in the browser, and nothing was written to its console but that a server was gone."""
    page.driver.execute_script("localStorage.clear(); sessionStorage.clear()")
    log = [entry["message"] for entry in page.driver.get_log("browser")]
    gone = "ERR_CONNECTION_REFUSED", "ERR_CONTENT_LENGTH_MISMATCH"
    others = [message for message in log if not any(code in message for code in gone)]
    assert others == [], others
