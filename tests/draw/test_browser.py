"""The HTML page in a real Chromium, without a window: pointer, keys, search, folding, light and dark."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import blockdsl
from blockdsl import BlockGraph
from blockdsl.draw import page

from .test_html import PATTERN, evil, graph  # noqa: F401 - evil is a fixture

BROWSER = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # a container has little of it
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,800",
]

Open = Callable[..., "Tab"]


class Tab:
    """A page that is open, and what a person does with it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def js(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(f"return {code}", *arguments)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def node(self, name: str) -> Any:
        return self.one(f'[data-node="{name}"]')

    def names(self, selector: str) -> list[str]:
        return [element.get_attribute("data-node") for element in self.all(selector)]

    def bits(self, selector: str) -> list[str]:
        return [element.text for element in self.all(f".bit{selector}")]

    def click(self, element: Any) -> None:
        """With the pointer, on what is in the element's middle."""
        self.point(element).click().perform()

    def point(self, element: Any) -> Any:
        from selenium.webdriver import ActionChains

        return ActionChains(self.driver, duration=0).move_to_element(element)

    def keys(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains, Keys

        named = {name: getattr(Keys, name) for name in dir(Keys) if name.isupper()}
        chain = ActionChains(self.driver, duration=0)
        for key in keys:
            *held, last = key.split("+") if len(key) > 1 else [key]
            for one in held:
                chain.key_down(named[one])
            chain.send_keys(named.get(last, last))
            for one in held:
                chain.key_up(named[one])
        chain.perform()

    def search(self, words: str) -> None:
        self.one("#query").clear()
        self.one("#query").send_keys(words)

    @property
    def focused(self) -> str:
        return self.js(
            "document.activeElement.id || document.activeElement.dataset.node || document.activeElement.className"
        )

    @property
    def details(self) -> str:
        return self.one("#details").text

    @property
    def live(self) -> str:
        return self.one("#live").get_attribute("textContent")

    @property
    def place(self) -> tuple[float, ...]:
        """Where the picture is, and its scale."""
        style = self.one("#picture").get_attribute("style")
        return tuple(float(number) for number in re.findall(r"-?[\d.]+(?=px|\))", style))

    def frame(self, element: Any) -> tuple[float, float, float, float]:
        rect = self.js("arguments[0].getBoundingClientRect()", element)
        return rect["left"], rect["top"], rect["right"], rect["bottom"]

    def inside_view(self, element: Any) -> bool:
        left, top, right, bottom = self.frame(element)
        x, y, to_x, to_y = self.frame(self.one("#view"))
        return x - 1 <= left and y - 1 <= top and right <= to_x + 1 and bottom <= to_y + 1


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not (BROWSER and DRIVER):
        reason = "no chromium and chromedriver here; on Debian: apt-get install chromium chromium-driver"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = BROWSER
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def show(driver: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens a graph's page from a file. Whatever is done with it, nothing is written to the console."""

    def open_page(drawn: BlockGraph | str, wide: int = 1280, high: int = 800, **media: str) -> Tab:
        path = tmp_path / "page.html"
        path.write_text(drawn if isinstance(drawn, str) else drawn.to_html(), encoding="utf-8")
        features = {"prefers-reduced-motion": "reduce", "prefers-color-scheme": "light"}
        features |= {name.replace("_", "-"): value for name, value in media.items()}
        emulated = [{"name": name, "value": value} for name, value in features.items()]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": emulated})
        size = {"width": wide, "height": high, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(path.as_uri())
        tab = Tab(driver)
        driver.implicitly_wait(5)
        tab.one("body[data-ready]")
        driver.implicitly_wait(0)
        return tab

    yield open_page
    assert driver.get_log("browser") == []


def test_it_opens_with_the_picture_the_text_and_an_overview(show: Open) -> None:
    tab = show(graph())
    assert (
        tab.one("#title").text
        == "dim 64 · 4 heads of 64 · pre-norm LayerNorm · 36 blocks · 3 stages · "
        + f"{graph().parameters():,} parameters"
    )
    assert tab.one("#text pre").text == blockdsl.format_text(PATTERN).strip()
    assert len(tab.all(".block")) == 10
    assert "Overview" in tab.details
    assert "2: deep" in tab.details
    assert all(tab.inside_view(block) for block in tab.all("[data-node]"))
    assert tab.js("performance.getEntriesByType('resource').length") == 0


def test_a_click_shows_a_block(show: Open) -> None:
    tab = show(blockdsl.compile("(a(heads=2) f)*6", dim=8, heads=4, attn_dim_head=3))
    each = 8 * 18 + 6 * 8 + 16
    tab.click(tab.node("a0"))
    assert tab.details.startswith("Self-attention a(heads=2)\na0, a2, a4, a6, a8, a10 (6 blocks)")
    for words in (f"{each}", f"{6 * each:,}", "heads 2", "to_qkv.weight 18 × 8", "at 1,024 tokens"):
        assert words in tab.details.replace("\n", " "), words
    assert tab.bits(".chosen") == ["a(heads=2)"]
    assert tab.names(".chosen[data-node]") == ["a0"]
    assert f"{6 * each:,} parameters" in tab.live
    tab.keys("ESCAPE")
    assert "Overview" in tab.details
    assert tab.bits(".chosen") == []


def test_a_tied_repeat_has_its_parameters_once(show: Open) -> None:
    tab = show(graph("(a f@x)*6"))
    tab.click(tab.node("f1"))
    own = 64 * 256 * 2 + 256 + 64 + 128
    assert tab.live.endswith(f": {own:,} parameters. Details follow the pattern.")
    assert "one set of parameters for all 6 blocks @x" in tab.details


def test_the_keys_alone_do_it_all(show: Open) -> None:
    tab = show(graph("(a f)*2 c"))
    stops = []
    for _ in range(9):
        tab.keys("TAB")
        stops.append(tab.focused)
    assert stops == ["query", "fold", "out", "in", "fit", "dark", "view", "input", "bit"]
    tab.js("document.getElementById('view').focus()")
    tab.keys("TAB", "ARROW_DOWN", "ARROW_DOWN")
    assert tab.focused == "f1"
    assert tab.bits(".lit") == ["f"]
    tab.keys("ENTER")
    assert tab.details.startswith("Feedforward f")
    assert tab.node("f1").get_attribute("aria-pressed") == "true"
    tab.keys("END")
    assert tab.focused == "output"
    tab.keys("HOME")
    assert tab.focused == "input"
    tab.keys("ARROW_UP")
    assert tab.focused == "input"
    tab.keys("TAB", "ARROW_RIGHT", "ARROW_RIGHT")
    assert tab.names(".lit[data-node]") == ["c4"]
    tab.keys("ENTER")
    assert tab.details.startswith("Cross-attention c")
    tab.keys("/")
    assert tab.focused == "query"


def test_controls_and_blocks_have_names_and_a_visible_focus(show: Open) -> None:
    tab = show(graph("(a f(glu))*3 | a"))
    for button in tab.all("button"):
        assert button.accessible_name.strip("↑↓−+")
        assert button.aria_role == "button"
    assert tab.node("a0").aria_role == "button"
    assert tab.node("f1").accessible_name == "Feedforward, f(glu), f1 to f5, 3 blocks"
    assert tab.one("#query").aria_role == "searchbox"
    assert tab.one("#details").accessible_name == "Overview"
    tab.js("document.getElementById('view').focus()")
    tab.keys("TAB", "ARROW_DOWN")
    rect = tab.one('[data-node="a0"] > rect')
    assert rect.value_of_css_property("stroke-width") == "3px"
    tab.keys("TAB")
    assert tab.js("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("a3", ["a3"]),
        ("glu", ["f4"]),
        ("heads=2", ["a3"]),
        ("heads=4", ["a1", "a15", "a24"]),
        ("@x", ["f17"]),
        ("deep: self", []),
        ("deep a", ["a3", "a15"]),
        ("Self-Attention heads=2", ["a3"]),
        ("dropout=0.0 glu", ["f4"]),
        ("nothing", []),
    ],
)
def test_search(show: Open, words: str, found: list[str]) -> None:
    tab = show(graph(PATTERN.replace("heads=4", "heads=2")))
    tab.search(words)
    assert tab.names(".hit[data-node]") == found
    assert tab.one("#hits").text == (f"{len(found) or 'no'} hit{'s' * (len(found) != 1)}")
    assert tab.one("#next").is_enabled() == bool(found)


def test_search_steps_through_its_hits(show: Open) -> None:
    tab = show(graph("a f " * 60))
    tab.one("#fold").click()
    tab.search("f")
    assert tab.one("#hits").text == "60 hits"
    tab.keys("ENTER", "ENTER")
    assert tab.names(".now[data-node]") == ["f3"]
    assert tab.one("#hits").text == "2 of 60"
    assert tab.details.startswith("Feedforward")
    assert "f3" in tab.live
    tab.keys("SHIFT+ENTER", "SHIFT+ENTER")
    assert tab.names(".now[data-node]") == ["f119"]
    assert tab.inside_view(tab.node("f119"))
    assert tab.focused == "query"
    tab.one("#next").click()
    assert tab.names(".now[data-node]") == ["f1"]
    tab.search("a")
    tab.keys("ESCAPE")
    assert tab.names(".hit[data-node]") == []
    assert tab.one("#query").get_attribute("value") == ""


def test_repeats_fold_and_unfold(show: Open) -> None:
    tab = show(graph("f (a f)*6"))
    assert tab.names(".block") == ["f0", "a1", "f2"]
    tab.click(tab.node("a1"))
    tab.one("#fold").click()
    assert len(tab.all(".block")) == 13
    assert tab.one("#fold").get_attribute("aria-pressed") == "true"
    assert tab.live == "Every block is drawn."
    assert tab.details.startswith("Self-attention a\na1\n")
    assert tab.bits(".chosen") == ["a"]
    tab.js("document.getElementById('view').focus()")
    tab.keys("TAB", "u")
    assert tab.names(".block") == ["f0", "a1", "f2"]
    assert tab.focused == "a1"
    assert "(6 blocks)" in tab.details
    tab.click(tab.one(".repeat > text"))
    assert len(tab.all(".block")) == 13
    assert tab.inside_view(tab.node("a1"))


def test_a_click_beside_branches_shows_what_was_clicked(show: Open) -> None:
    tab = show(graph("(a (f a f) & f a@x)*6 c"))  # whose gains are circles that stand for no node
    tab.click(tab.one('[data-node="c36"]'))
    assert tab.details.startswith("Cross-attention c\nc36\n")
    assert tab.bits(".chosen") == ["c"]


def test_where_there_is_nothing_to_fold(show: Open) -> None:
    assert not show(graph("a f c")).one("#fold").is_enabled()


def test_the_pointer_lights_up_the_text_and_the_reverse(show: Open) -> None:
    tab = show(graph())
    tab.point(tab.node("a3")).perform()
    assert tab.bits(".lit") == ["a(heads=4)>>1"]
    (sandwich,) = [bit for bit in tab.all(".bit") if bit.text == "sandwich(6)"]
    tab.point(tab.node("a24")).perform()
    assert tab.bits(".lit") == ["sandwich(6)"]
    tab.point(sandwich).perform()
    assert tab.names(".lit[data-node]") == ["a24", "f30"]
    assert tab.bits(".lit") == []
    tab.click(sandwich)
    assert tab.details.startswith("12 blocks\na24, a25, a26, a27, …, f35")
    tab.point(tab.one("#title")).perform()
    assert tab.names(".lit[data-node]") == []
    assert tab.names(".chosen[data-node]") == ["a24", "f30"]
    tab.point(tab.one(".ground")).perform()
    assert tab.bits(".lit") == []


def test_zoom(show: Open) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    tab = show(graph())
    *_, scale = tab.place
    assert tab.one("#zoom").text == f"{round(scale * 100)}%"
    tab.one("#in").click()
    assert tab.place[2] == pytest.approx(scale * 1.25, rel=1e-3)
    tab.keys("-", "-")
    assert tab.place[2] == pytest.approx(scale * 0.8, rel=1e-3)
    tab.keys("0")
    left, top, right, bottom = tab.frame(tab.one("#picture svg"))
    x, y, to_x, to_y = tab.frame(tab.one("#view"))
    assert x <= left
    assert right <= to_x
    assert (top, bottom) == pytest.approx((y, to_y), abs=1)
    box = tab.node("a3")
    before = tab.frame(box)
    ActionChains(tab.driver, duration=0).scroll_from_origin(ScrollOrigin.from_element(box), 0, -200).perform()
    after = tab.frame(box)
    assert after[2] - after[0] > 1.3 * (before[2] - before[0])
    middles = [((each[0] + each[2]) / 2, (each[1] + each[3]) / 2) for each in (before, after)]
    assert middles[1] == pytest.approx(middles[0], abs=3)  # what is under the pointer stays there


def test_pan(show: Open) -> None:
    tab = show(graph())
    x, y, scale = tab.place
    tab.point(tab.node("a3")).click_and_hold().move_by_offset(30, 40).move_by_offset(10, 10).release().perform()
    assert tab.place == pytest.approx((x + 40, y + 50, scale), abs=0.6)
    assert tab.names(".chosen[data-node]") == []  # a drag is no click
    tab.click(tab.node("a3"))
    tab.point(tab.node("f4")).click_and_hold().move_by_offset(-20, -30).release().perform()
    assert tab.names(".chosen[data-node]") == ["a3"]
    tab.js("document.getElementById('view').focus()")
    tab.keys("ARROW_LEFT", "ARROW_UP", "ARROW_UP")
    assert tab.place == pytest.approx((x + 80, y + 140, scale), abs=0.6)
    tab.click(tab.one(".ground"))
    assert tab.names(".chosen[data-node]") == []


def test_two_fingers_zoom_and_one_pans(show: Open) -> None:
    tab = show(graph(), 420, 800)
    *_, scale = tab.place

    def touch(kind: str, *points: tuple[int, int]) -> None:
        touches = [{"x": left, "y": top, "id": i} for i, (left, top) in enumerate(points)]
        tab.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    touch("touchStart", (150, 300), (250, 300))
    touch("touchMove", (100, 300), (300, 300))
    touch("touchEnd")
    assert tab.place[2] == pytest.approx(2 * scale, rel=0.02)
    before = tab.place
    touch("touchStart", (200, 300))
    touch("touchMove", (200, 340))
    touch("touchMove", (220, 350))
    touch("touchEnd")
    assert tab.place == pytest.approx((before[0] + 20, before[1] + 50, before[2]), abs=1)


@pytest.mark.parametrize("setting", ["light", "dark"])
def test_light_and_dark(show: Open, setting: str) -> None:
    tab = show(graph("a f"), prefers_color_scheme=setting)

    def bright(code: str) -> bool:
        return sum(map(int, re.findall(r"\d+", tab.js(code))[:3])) > 384

    def looks() -> list[bool]:
        return [
            bright("getComputedStyle(document.body).backgroundColor"),
            bright("getComputedStyle(document.querySelector('[data-node=a0] > rect')).fill"),
            not bright("getComputedStyle(document.querySelector('[data-node=a0] > text.title')).fill"),
            tab.one("#dark").get_attribute("aria-pressed") == "false",
        ]

    is_light = setting == "light"
    assert looks() == [is_light] * 4
    tab.one("#dark").click()
    assert looks() == [not is_light] * 4
    tab.one("#dark").click()
    assert looks() == [is_light] * 4


@pytest.mark.parametrize(("motion", "seconds"), [("reduce", "0s"), ("no-preference", "0.2s")])
def test_motion_only_for_those_who_want_it(show: Open, motion: str, seconds: str) -> None:
    tab = show(graph("a f"), prefers_reduced_motion=motion)
    tab.one("#in").click()
    assert tab.one("#picture").value_of_css_property("transition-duration") == seconds


@pytest.mark.parametrize(("wide", "high"), [(1280, 800), (420, 800)])
def test_nothing_overlaps_or_leaves_the_window(show: Open, wide: int, high: int) -> None:
    pages = page({"encoder": graph("(a f)*6"), "decoder": graph("(a c f)*6 " + "f(mult=2) a(heads=8) " * 30)})
    tab = show(pages, wide, high)
    tab.click(tab.node("encoder.a0"))
    assert tab.js("document.documentElement.scrollWidth") <= wide
    areas = [tab.frame(each) for each in tab.all("h1, button, input, #view, #text, #details")]
    for i, (left, top, right, bottom) in enumerate(areas):
        assert left >= 0
        assert right <= wide
        for other in areas[i + 1 :]:
            apart = right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
            assert apart, (areas[i], other)
    for cell in tab.all("#text pre, #details td, #details p, #details h2"):
        assert tab.js("arguments[0].scrollWidth <= arguments[0].clientWidth", cell)


def test_no_name_runs_as_a_script(show: Open, evil: BlockGraph) -> None:  # noqa: F811
    for text in (evil.to_html(), page({"<img src=x onerror='document.title=1'>": evil})):
        tab = show(text)
        tab.click(tab.all(".block")[0])
        tab.search("style")
        assert tab.all("img") == []
        assert tab.js("document.getElementById('details').textContent.includes('onerror')")
        assert tab.driver.title != "1"


def test_a_thousand_blocks_unfold_within_seconds(show: Open) -> None:
    tab = show(graph("(a f)*500"))
    code = "(() => { const start = performance.now(); document.getElementById('fold').click(); return performance.now() - start; })()"
    assert tab.js(code) < 3000
    assert len(tab.all(".block")) == 1000
