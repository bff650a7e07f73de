"""The page to write patterns in, in Chromium: typing, mistakes, lighting up, comparing, undo, saving, exporting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import blockdsl
from blockdsl.editor.server import EditedFile, Server

from ..draw.test_browser import driver  # noqa: F401 - a fixture
from .browser import Page, closed, opened, wide
from .checks import CHECKS, TEXT


class Site:
    """The page's server, which can be stopped and started at the same address."""

    def __init__(self, document: EditedFile) -> None:
        self.document = document
        self.server = Server(document)
        self.address = self.server.address
        self._run()

    def _run(self) -> None:
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        self.server.cut()

    def start(self, token: str | None = None) -> None:
        port = self.server.server_address[1]
        self.server = Server(self.document, port, self.server.token if token is None else token)
        self._run()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    path = tmp_path / "model.pattern"
    path.write_text(TEXT)
    site = Site(EditedFile(TEXT, path.name, path))
    yield site
    site.stop()


@pytest.fixture
def page(driver: Any, site: Site, tmp_path: Path) -> Iterator[Page]:  # noqa: F811
    """Open, at 1280 pixels in light. Whatever is done with it, nothing is written to the console."""
    page = opened(driver, site.address, tmp_path, "model")
    yield page
    closed(page)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_page(page: Page, check: Callable[[Page], None]) -> None:
    check(page)


def test_it_opens_with_the_text_its_picture_and_its_costs(page: Page, site: Site) -> None:
    assert page.text == TEXT
    assert page.js("document.activeElement.tagName") == "TEXTAREA"
    assert page.names(".block") == ["f0", "a1", "f2", "a3", "f4"]
    graph = blockdsl.compile(TEXT)
    rows = "[...document.querySelectorAll('#totals > div')]"  # at once: they may be written anew in between
    assert page.js(f"{rows}.map(row => [row.title, row.querySelector('dt').textContent])") == [
        [f"{graph.parameters():,}", "parameters"],
        [f"{graph.flops(1024) // 1024:,}", "FLOPs a token"],
        [f"{graph.kv_cache_bytes(1024):,} bytes", "cache a row"],
    ]
    assert all(name.startswith(site.address) for name in page.resources())


def test_saving(page: Page, site: Site) -> None:
    page.write("a f").keys("CONTROL+s")
    page.until(lambda: page.one("#saved").text == "")
    assert site.document.path is not None
    assert site.document.path.read_text() == "a f"
    site.document.path.write_text("f")
    page.write("a")
    page.one("#save").click()
    page.until(lambda: "has changed" in page.status)
    page.one("#status button").click()
    page.until(lambda: page.status == "")
    assert site.document.path.read_text() == "a"


def test_a_server_that_dies_and_comes_back(page: Page, site: Site) -> None:
    site.stop()
    page.caret(0)
    page.driver.execute_script("document.execCommand('insertText', false, '# new\\n')")
    page.until(lambda: page.status.startswith("The server does not answer."))
    assert page.text == "# new\n" + TEXT
    site.start()
    page.settled()
    assert page.status == ""
    assert page.text == "# new\n" + TEXT


def test_an_answer_that_breaks_off_is_asked_for_again(page: Page, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(self: Any, status: int, content: bytes, type: str) -> None:
        monkeypatch.undo()
        head = f"HTTP/1.1 {status:d} OK\r\nContent-Type: {type}\r\nContent-Length: {len(content)}\r\n\r\n"
        self.wfile.write(head.encode() + content[: len(content) // 2])
        self.close_connection = True

    monkeypatch.setattr(site.server.RequestHandlerClass, "_send", half)
    page.write("a f a")
    assert page.names(".block") == ["a0", "f1", "a2"]
    assert page.status == ""


def test_a_picture_is_told_from_the_one_before_however_fast_keys_follow(page: Page) -> None:
    page.driver.execute_script("""const own = window.fetch;
        window.told = [];
        window.fetch = async (...asked) => {
            const answer = await own(...asked), { do: what, known } = JSON.parse(asked[1].body);
            if (what === "look") told.push([known.picture, (await answer.clone().json()).picture.picture]);
            return answer;
        };""")
    page.caret(len(TEXT) - 1)
    page.driver.execute_script("for (const key of ' a f') document.execCommand('insertText', false, key)")
    told = page.settled().js("told")
    assert len(told) > 1
    assert [before for before, _ in told[1:]] == [number for _, number in told[:-1]]


def test_a_page_that_opens_with_a_mistake_has_words_where_the_picture_is_to_be(page: Page) -> None:
    page.write("a ( f")
    page.driver.refresh()
    page.settled()
    instead = "getComputedStyle(document.querySelector('#view'), '::before').content"
    assert page.js(instead) == '"The picture is drawn once the text has no mistake."'
    page.driver.execute_script("document.querySelector('#view').classList.remove('stale')")  # as before an answer
    assert page.js(instead) == "none"
    page.write("a f")
    assert page.names(".block") == ["a0", "f1"]


def test_closing_and_reopening_loses_nothing(page: Page, site: Site) -> None:
    page.write("a f a")
    page.driver.switch_to.new_window("tab")
    page.driver.get(site.address)
    page.settled()
    assert page.text == "a f a"
    assert page.status.startswith("This is what you had written and not saved.")
    page.write("f")
    other, mine = page.driver.window_handles
    page.driver.switch_to.window(other)
    assert page.text == "a f a"  # each tab its own
    page.driver.refresh()
    page.settled()
    assert page.text == "a f a"
    page.driver.switch_to.window(mine)
    page.one("#status button").click()
    page.settled()
    assert page.text == TEXT
    page.driver.close()
    page.driver.switch_to.window(other)


@pytest.mark.parametrize("width", [390, 800, 1440])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    wide(page.driver, width)
    assert page.js("document.documentElement.scrollWidth") <= width
    for button in page.all("header button"):
        left, _, right, _ = page.frame(button)
        assert 0 <= left < right <= width
        assert button.accessible_name
