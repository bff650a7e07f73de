"""From key to picture, measured in a real Chromium: `python -m tests.edit.times [NAME ...]`.

Keys are typed in the middle of a text and at its end, one after the other, each once the picture of the one before is
painted. A time is the median over the keys, in milliseconds:

    server    the library's answer as JSON, on the server's side
    transfer  what the request takes besides
    parse     JSON to objects
    page      until the page has put the picture into its document
    paint     until the frame with it is painted: style, layout, painting
    whole     from the key to there
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from blockdsl.editor.server import EditedFile, Server

from ..draw.test_browser import BROWSER, DRIVER, FLAGS
from .browser import Page, opened

PARTS = ("server", "transfer", "parse", "page", "paint", "whole")
KEYS = ("f", "a", "f", "a", "a", "f")

_chosen = random.Random(0)
TEXTS = {
    "48 folded": "(a f)*24",
    "48 mixed": " ".join(_chosen.choice(["a", "f", "a(heads=4)", "f(glu)"]) for _ in range(48)),
    "48 different": " ".join(f"a(heads={i % 7 + 1})" if i % 2 else f"f(mult={1 + i})" for i in range(48)),
    "2,000 folded": "(a f)*1000",
    "2,000 mixed": " ".join(_chosen.choice(["a", "f", "a(heads=4)", "f(glu)"]) for _ in range(2000)),
    "2,000 different": " ".join(f"a(heads={i % 7 + 1})" if i % 2 else f"f(mult={1 + i})" for i in range(2000)),
}
"""By name; `mixed` are blocks of four kinds by chance."""

PROBE = """
const asked = [], real = window.fetch.bind(window);
window.fetch = async (...request) => {
    const time = {asked: performance.now(), of: JSON.parse(request[1].body).do};
    const response = await real(...request), text = await response.text();
    time.answered = performance.now();
    response.json = async () => {
        const parsed = JSON.parse(text);
        time.parsed = performance.now();
        return parsed;
    };
    asked.push(time);
    return response;
};
window.typed = async (at, keys) => {
    const area = document.querySelector("#text textarea"), out = [];
    area.focus();
    const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
    const pause = (time) => new Promise((resolve) => setTimeout(resolve, time));
    for (const key of keys) {
        area.setSelectionRange(at, at);
        await pause(400);  // the words on what the caret is in are asked for too
        asked.length = 0;
        const shown = new Promise((resolve) => new MutationObserver((_, observer) => {
            if (document.body.dataset.state !== "drawn") return;
            observer.disconnect();
            resolve(performance.now());
        }).observe(document.body, {attributeFilter: ["data-state"]}));
        const pressed = performance.now();
        document.execCommand("insertText", false, ` ${key}`);
        at += key.length + 1;
        const drawn = await shown;
        await frame();
        await pause(0);  // the browser paints a frame before it goes on
        const painted = performance.now(), own = asked.find((time) => time.of === "look");
        out.push({request: own.answered - pressed, parse: own.parsed - own.answered, page: drawn - own.parsed,
            paint: painted - drawn, whole: painted - pressed});
    }
    return out;
};
"""


class Timed(Server):
    """A server that notes how long each picture took it, in milliseconds."""

    def __init__(self, document: EditedFile) -> None:
        super().__init__(document)
        self.took: list[float] = []

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        begin = perf_counter()
        answer = super().answer(request)
        if request.get("do") == "look":
            self.took.append(1000 * (perf_counter() - begin))
        return answer


@contextmanager
def serving(text: str) -> Iterator[Timed]:
    server = Timed(EditedFile(text))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.5})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
    server.cut()


@contextmanager
def browsing(folder: Path) -> Iterator[Any]:
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    assert BROWSER, "no chromium here"
    options.binary_location = BROWSER
    for flag in [*FLAGS, f"--user-data-dir={folder}"]:
        options.add_argument(flag)
    driver = Chrome(options, ChromeService(DRIVER))
    yield driver
    driver.quit()


def times(page: Page, server: Timed, at: int) -> dict[str, float]:
    """The median of each of PARTS, of keys typed there; the first key is not counted."""
    server.took.clear()
    code = "const [at, keys, done] = arguments; window.typed(at, keys).then(done, (error) => done(String(error)))"
    found = page.driver.execute_async_script(code, at, KEYS)
    assert isinstance(found, list), found
    for each, took in zip(found, server.took, strict=True):
        each |= {"server": took, "transfer": each.pop("request") - took}
    return {part: median(each[part] for each in found[1:]) for part in PARTS}


def main(names: list[str]) -> None:
    chosen = [name for name in TEXTS if not names or any(each in name for each in names)]
    print(f"{'blocks':18}{'typed':8}" + "".join(f"{part:>10}" for part in PARTS))
    with tempfile.TemporaryDirectory() as folder, browsing(Path(folder)) as driver:
        driver.set_script_timeout(120)
        for name in chosen:
            text = TEXTS[name]
            half = len(text) // 2 if "*" not in text else 0
            for place, at in (("middle", text.find(" ", half)), ("end", len(text))):
                with serving(text) as server:
                    page = opened(driver, server.address, Path(folder), "pattern")
                    driver.execute_script(PROBE)
                    row = times(page, server, at)
                    driver.execute_script("localStorage.clear(); sessionStorage.clear()")
                print(f"{name:18}{place:8}" + "".join(f"{row[part]:10.0f}" for part in PARTS), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
