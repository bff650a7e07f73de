"""The page to write patterns in, in Chromium: typing, mistakes, lighting up, comparing, undo, saving, exporting."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import blockdsl
from blockdsl.editor.server import EditedFile, Server

from ..draw.test_browser import driver  # noqa: F401 - a fixture
from .browser import Page

TEXT = "# a decoder\nset dim=64, heads=4, causal;\nunit = a f(glu);\nstem: f a f | unit*3\n"

Open = Callable[..., Page]


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
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    features = {"prefers-reduced-motion": "reduce", "prefers-color-scheme": "light"}
    emulated = [{"name": name, "value": value} for name, value in features.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": emulated})
    wide(driver, 1280)
    driver.get(site.address)
    yield Page(driver).settled()
    driver.execute_script("localStorage.clear(); sessionStorage.clear()")
    assert [entry for entry in driver.get_log("browser") if "ERR_CONNECTION_REFUSED" not in entry["message"]] == []


def wide(driver: Any, width: int, height: int = 800) -> None:  # noqa: F811
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def test_it_opens_with_the_text_its_picture_and_its_costs(page: Page, site: Site) -> None:
    assert page.text == TEXT
    assert page.js("document.activeElement.tagName") == "TEXTAREA"
    assert page.names(".block") == ["f0", "a1", "f2", "a3", "f4"]
    graph = blockdsl.compile(TEXT)
    totals = [
        (one.get_attribute("title"), one.find_element("tag name", "dt").text) for one in page.all("#totals > div")
    ]
    assert totals == [
        (f"{graph.parameters():,}", "parameters"),
        (f"{graph.flops(1024) // 1024:,}", "FLOPs a token"),
        (f"{graph.kv_cache_bytes(1024):,} bytes", "cache a row"),
    ]
    assert all(name.startswith(site.address) for name in page.resources())


def test_typing_changes_the_picture(page: Page) -> None:
    page.caret(len(TEXT) - 1)
    page.type(" ", "m").settled()
    assert page.text == TEXT[:-1] + " m\n"
    assert page.names(".block")[-1] == "m9"
    assert page.one("#saved").text == "not saved"
    assert page.driver.title.startswith("• model.pattern")


def test_a_mistake_is_underlined_in_the_words_of_check(page: Page) -> None:
    text = "(a ff)*6"
    page.write(text)
    with pytest.raises(blockdsl.PatternError) as error:
        blockdsl.parse(text)
    assert page.problems == [error.value.problem]
    assert page.one("#problems .hint").text == error.value.hint
    assert page.marked("error") == ["ff"]
    assert "stale" in page.one("#view").get_attribute("class")
    assert page.names(".block") == ["f0", "a1", "f2", "a3", "f4"]  # the last one that there was
    page.write("(a f)*6")
    assert page.problems == page.marked("error") == []
    assert "stale" not in page.one("#view").get_attribute("class")


def test_blocks_and_text_light_each_other_up(page: Page) -> None:
    page.caret(TEXT.index("a f(glu)"))
    page.until(lambda: page.names(".lit[data-node]") == ["a3"])
    assert page.marked("lit") == ["a"]
    page.point(page.node("f4")).perform()
    assert page.marked("lit") == ["f(glu)"]
    page.point(page.one("#zoom")).perform()
    page.click(page.node("f2"))
    assert page.js("document.activeElement.tagName") == "TEXTAREA"
    assert page.js("[document.activeElement.selectionStart, document.activeElement.selectionEnd]") == [
        TEXT.index("f |"),
        TEXT.index("f |") + 1,
    ]


def test_costs_at_another_length_and_type(page: Page) -> None:
    page.one("#length").clear()
    page.one("#length").send_keys("7")
    page.driver.execute_script(
        "const s = document.getElementById('dtype'); s.value = 'int8'; s.dispatchEvent(new Event('change'))"
    )
    page.settled()
    assert (
        page.all("#totals > div")[2].get_attribute("title")
        == f"{blockdsl.compile(TEXT).kv_cache_bytes(7, dtype='int8'):,} bytes"
    )


def test_holding_against_a_second_text(page: Page) -> None:
    page.one("#compare").click()
    page.settled()
    assert page.one("#changes pre").get_attribute("textContent") == "no differences"
    page.write(TEXT.replace("glu", "glu, mult=2"))
    assert "mult 4 -> 2" in page.one("#changes pre").get_attribute("textContent")
    page.write("(a ff)", "#against textarea")
    assert page.problems == ["unknown block 'ff'"]
    page.one("#compare").click()
    page.settled()
    assert page.problems == []
    assert page.names(".block") == ["f0", "a1", "f2", "a3", "f4"]


def test_undo_and_redo(page: Page) -> None:
    page.caret(len(TEXT) - 1)
    page.type("*", "2").settled()
    page.one("#undo").click()
    page.one("#undo").click()
    page.settled()
    assert page.text == TEXT
    page.one("#redo").click()
    page.one("#redo").click()
    assert page.settled().text == TEXT[:-1] + "*2\n"
    page.write("a   f")
    page.one("#format").click()
    page.until(lambda: page.text == "a f\n")
    page.keys("CONTROL+z", "CONTROL+z")
    page.until(lambda: page.text == TEXT[:-1] + "*2\n")


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


def test_exports(page: Page, tmp_path: Path) -> None:
    for words, suffix in (("svg", "svg"), ("png", "png"), ("html", "html"), ("json", "json"), ("pyth", "py")):
        page.keys("CONTROL+e")
        page.until(lambda: page.js("document.activeElement.id") == "query")
        page.keys(*words, "ENTER")
        path = tmp_path / f"model.{suffix}"
        page.until(path.exists, suffix)
    graph = blockdsl.compile(TEXT)
    assert (tmp_path / "model.svg").read_text() == graph.to_svg() + "\n"
    assert (tmp_path / "model.html").read_text() == graph.to_html()
    assert blockdsl.BlockGraph.from_json((tmp_path / "model.json").read_text()) == graph
    page.until(lambda: (tmp_path / "model.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n")
    made: dict[str, Any] = {}
    exec((tmp_path / "model.py").read_text().replace("import xt_blocks", "").replace("model = ", "# "), made)
    assert made["graph"] == graph


def test_the_menu_inserts_models_and_macros(page: Page) -> None:
    page.keys("CONTROL+k")
    page.until(lambda: page.js("document.activeElement.id") == "query")
    page.keys(*"llama3-8b", "ENTER")
    page.settled()
    assert page.text == blockdsl.zoo.entry("llama3-8b").text
    page.keys("CONTROL+z")
    page.settled()
    assert page.text == TEXT
    page.keys("CONTROL+k")
    page.until(lambda: page.js("document.activeElement.id") == "query")
    page.keys("ESCAPE")
    assert page.js("document.getElementById('menu').open") is False
    assert page.text == TEXT


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


def test_markup_is_text(page: Page) -> None:
    evil = "# <img src=x onerror=alert(1)></pre><script>alert(2)</script> &amp; 🙂\nset dim=8, heads=1; x<y>:"
    page.write(evil)
    assert page.text == evil
    assert page.all("img") == page.all("#text script") == []
    assert "<script>" in page.js("document.querySelector('#text pre').textContent")
    page.write("# 🙂🙂\na ff")
    assert page.marked("error") == ["ff"]
    assert json.dumps(page.problems) == json.dumps(["unknown block 'ff'"])


@pytest.mark.parametrize("width", [390, 800, 1440])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    wide(page.driver, width)
    assert page.js("document.documentElement.scrollWidth") <= width
    for button in page.all("header button"):
        left, _, right, _ = page.frame(button)
        assert 0 <= left < right <= width
        assert button.accessible_name
