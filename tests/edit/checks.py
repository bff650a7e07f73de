"""What the page does, whether a server or a Python of its own answers it. Each begins with the page showing TEXT."""

from __future__ import annotations

import json
from typing import Any

import pytest

import blockdsl
from blockdsl.draw.layout.picture import scene
from blockdsl.draw.layout.scene import NAMELESS
from blockdsl.editor.scan import tokens

from .browser import Page

TEXT = "# a decoder\nset dim=64, heads=4, causal;\nunit = a f(glu);\nstem: f a f | unit*3\n"


def check_typing_changes_the_picture(page: Page) -> None:
    page.caret(len(TEXT) - 1)
    page.type(" ", "m").settled()
    assert page.text == TEXT[:-1] + " m\n"
    assert page.names(".block")[-1] == "m9"
    assert page.one("#saved").text == "not saved"
    assert page.driver.title.startswith(f"• {page.name}")


BOXES = """[...document.querySelectorAll("#view [data-node]")].map(box => [box.dataset.node,
    box.getAttribute("transform"), [...box.querySelectorAll("text")].map(text => text.textContent).join("/")])"""
LINES = """[...document.querySelectorAll("#view path.edge:not(.key *)")].reduce((sum, line) =>
    sum + line.getAttribute("d").split("M").length - 1, 0)"""


def check_what_stays_in_the_picture_is_as_drawn_anew(page: Page) -> None:
    for text in ["(a f)*3 a f", "a f f(glu) a f", "a^x f <x f & a", "a f", "(a f)*40", "one: a f | two: (a c)*3", TEXT]:
        page.write(text)
        own = scene(blockdsl.compile(text, **({} if "dim" in text else {"dim": 512})).streams())
        named = [box for box in own.boxes if box.look.type not in NAMELESS]
        words = ["/".join(line.text for line in box.texts) for box in named]
        places = [f"translate({box.x:g} {box.y:g})" for box in named]
        assert page.js(BOXES) == [[box.node, at, said] for box, at, said in zip(named, places, words, strict=True)]
        assert page.js(LINES) == len(own.edges)
    page.write("a f m(bidirectional)")
    page.js("document.querySelectorAll('.block')[2].marked = true")
    page.write("a f f(glu) m(bidirectional)")
    assert page.names(".block") == ["a0", "f1", "f2", "m3"]
    assert page.js("document.querySelectorAll('.block')[3].marked"), "a block that moved is the same element"


def check_a_block_that_is_pointed_at_tells_of_itself(page: Page) -> None:
    page.point(page.node("f2")).perform()
    title = "document.querySelector('[data-node=f2] > title')?.textContent"
    page.until(lambda: page.js(title))
    assert page.js(title) in blockdsl.compile(TEXT).to_svg()
    page.write(TEXT.replace("f a f |", "f(mult=2) a f |"))
    page.point(page.node("f0")).perform()
    page.until(lambda: "mult=2" in (page.js(title.replace("f2", "f0")) or ""))


def check_a_mistake_is_underlined_in_the_words_of_check(page: Page) -> None:
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


def check_blocks_and_text_light_each_other_up(page: Page) -> None:
    page.caret(TEXT.index("a f(glu)"))
    page.until(lambda: page.names(".lit[data-node]") == ["a3"])
    assert page.marked("lit") == ["a"]
    page.point(page.node("f4")).perform()
    assert page.marked("lit") == ["f(glu)", "unit"]
    page.point(page.one("#zoom")).perform()
    page.click(page.node("f2"))
    assert page.js("document.activeElement.tagName") == "TEXTAREA"
    assert page.js("[document.activeElement.selectionStart, document.activeElement.selectionEnd]") == [
        TEXT.index("f |"),
        TEXT.index("f |") + 1,
    ]


def check_a_definition_lights_up_with_its_uses(page: Page) -> None:
    text = "x = a f; x*2 c x"
    page.write(text)
    page.caret(text.index("x*2"))
    page.until(lambda: page.names(".lit[data-node]") == ["a0", "f1"])  # a repeat of two, drawn once
    page.caret(text.rindex("x"))
    page.until(lambda: page.names(".lit[data-node]") == ["a5", "f6"])
    page.caret(text.index("a f"))
    page.until(lambda: page.names(".lit[data-node]") == ["a0", "a5"])
    page.caret(0)
    page.until(lambda: page.names(".lit[data-node]") == ["a0", "f1", "a5", "f6"])
    page.point(page.node("f6")).perform()
    assert page.marked("lit") == ["f", "x"]


def check_costs_at_another_length_and_type(page: Page) -> None:
    code = """for (const [id, value] of arguments[0]) {
        const box = document.getElementById(id);
        box.value = value;
        box.dispatchEvent(new Event(id === "length" ? "input" : "change"));
    }"""
    graph = blockdsl.compile(TEXT)
    for length, dtype in ((7, "int8"), (1024, "float32")):
        page.driver.execute_script(code, [["length", str(length)], ["dtype", dtype]])
        page.settled()
        cache = f"{graph.kv_cache_bytes(length, dtype=dtype):,} bytes"
        assert page.all("#totals > div")[2].get_attribute("title") == cache


def check_parameters_are_told_in_billions_as_in_the_picture(page: Page) -> None:
    page.write("set dim=8192; f*4")
    shown = page.one("#totals dd").text
    assert shown == "2.15 B"
    assert f"{shown} parameters" in page.one("#view > svg").get_attribute("textContent")


def check_what_is_said_of_a_long_text_stays_in_sight(page: Page) -> None:
    page.write("set dim=64;\n" + "a f\n" * 60)
    page.keys("CONTROL+HOME", "CONTROL+END", *"(a ")
    page.settled()
    bottom = "document.querySelector('{}').getBoundingClientRect().bottom"
    assert page.problems == ["this '(' is never closed"]
    assert page.js(f"{bottom.format('#problems .place')} < innerHeight")
    assert page.js(f"{bottom.format('#costs')} <= innerHeight")
    page.until(lambda: page.js(f"{bottom.format('.editor > pre > span:last-child')} - 30 < {bottom.format('#text')}"))


def check_holding_against_a_second_text(page: Page) -> None:
    page.one("#compare").click()
    page.settled()
    assert page.one("#changes pre").get_attribute("textContent") == "no differences"
    page.write(TEXT.replace("glu", "glu, mult=2"))
    assert "mult 4 -> 2" in page.one("#changes pre").get_attribute("textContent")
    svg = page.downloads / f"{page.name}.svg"
    svg.unlink(missing_ok=True)
    page.keys("CONTROL+e")
    page.until(lambda: page.js("document.activeElement.id") == "query")
    page.keys(*"svg", "ENTER")
    page.until(svg.exists)
    found = blockdsl.compile(TEXT).diff(blockdsl.compile(page.text))
    page.until(lambda: svg.read_text() == found.to_svg() + "\n", "a picture of what is shown")
    page.write("(a ff)", "#against textarea")
    assert page.problems == ["unknown block 'ff'"]
    page.one("#compare").click()
    page.settled()
    assert page.problems == []
    assert page.names(".block") == ["f0", "a1", "f2", "a3", "f4"]


def check_undo_and_redo(page: Page) -> None:
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


def check_exports(page: Page) -> None:
    for words, suffix in (("svg", "svg"), ("png", "png"), ("html", "html"), ("json", "json"), ("pyth", "py")):
        page.keys("CONTROL+e")
        page.until(lambda: page.js("document.activeElement.id") == "query")
        page.keys(*words, "ENTER")
        path = page.downloads / f"{page.name}.{suffix}"
        page.until(path.exists, suffix)
    graph = blockdsl.compile(TEXT)
    assert (page.downloads / f"{page.name}.svg").read_text() == graph.to_svg() + "\n"
    assert (page.downloads / f"{page.name}.html").read_text() == graph.to_html()
    assert blockdsl.BlockGraph.from_json((page.downloads / f"{page.name}.json").read_text()) == graph
    page.until(lambda: (page.downloads / f"{page.name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n")
    made: dict[str, Any] = {}
    exec(
        (page.downloads / f"{page.name}.py").read_text().replace("import xt_blocks", "").replace("model = ", "# "), made
    )
    assert made["graph"] == graph


def check_a_refusal_is_said_until_something_else_is_asked_for(page: Page) -> None:
    page.write("(a f")
    page.keys("CONTROL+e")
    page.until(lambda: page.js("document.activeElement.id") == "query")
    page.keys("ENTER")
    page.until(lambda: page.status == "the pattern has a mistake; mend it first")
    page.type(")")
    page.until(lambda: page.status == "")
    length = (
        "const box = document.getElementById('length'); box.value = arguments[0]; box.dispatchEvent(new Event('input'))"
    )
    page.driver.execute_script(length, "1" + "0" * 18)
    page.until(lambda: "must be below" in page.status)
    page.driver.execute_script(length, "1024")
    page.until(lambda: page.status == "")


def check_the_menu_inserts_models_and_macros(page: Page) -> None:
    page.keys("CONTROL+k")
    page.until(lambda: page.js("document.activeElement.id") == "query")
    assert page.one("#query").size["height"] == 34  # a long list leaves it its height
    page.keys(*"llama3-8b", "ENTER")
    page.until(lambda: page.text == blockdsl.zoo.entry("llama3-8b").text)
    page.settled().keys("CONTROL+z")
    page.until(lambda: page.text == TEXT)
    page.keys("CONTROL+k")
    page.until(lambda: page.js("document.activeElement.id") == "query")
    page.keys("ESCAPE")
    assert page.js("document.getElementById('menu').open") is False
    assert page.text == TEXT
    page.caret(len(TEXT))
    page.keys("CONTROL+k")
    page.until(lambda: page.js("document.activeElement.id") == "query")
    page.keys(*"sandwich", "ENTER")
    page.until(lambda: page.text.endswith("sandwich(6)"))
    assert page.settled().problems == []


def check_markup_is_text(page: Page) -> None:
    evil = "# <img src=x onerror=alert(1)></pre><script>alert(2)</script> &amp; 🙂\nset dim=8, heads=1; x<y>:"
    page.write(evil)
    assert page.text == evil
    assert page.all("img") == page.all("#text script") == []
    assert "<script>" in page.js("document.querySelector('#text pre').textContent")
    page.write("# 🙂🙂\na ff")
    assert page.marked("error") == ["ff"]
    assert json.dumps(page.problems) == json.dumps(["unknown block 'ff'"])


def listed(page: Page) -> list[str]:
    return [one.text for one in page.all(".completions:not([hidden]) b")]


def check_completion(page: Page) -> None:
    page.write("set dim=64, heads=4;\na(kv")
    page.keys("CONTROL+SPACE")
    page.until(lambda: listed(page) != [])
    assert listed(page)[0] == "kv_heads"
    first = page.one(".completions:not([hidden]) [aria-selected=true]")
    assert page.area.get_attribute("aria-activedescendant") == first.get_attribute("id")
    assert "heads of keys and values" in first.text
    page.keys("ENTER")
    page.until(lambda: "a(kv_heads" in page.text)
    assert listed(page) == []
    page.write("set dim=64, heads=4;\n")
    page.caret(len(page.text))
    page.keys("s", "a", "n")
    page.until(lambda: listed(page) == ["sandwich"])
    page.keys("ESCAPE")
    assert listed(page) == []
    page.keys("d")
    page.until(lambda: listed(page) == ["sandwich"])
    page.keys("TAB")
    page.until(lambda: page.text.endswith("\nsandwich("))
    page.keys(*"2)", "TAB")  # without a list, Tab goes on
    assert page.js("document.activeElement.tagName") != "TEXTAREA"
    assert page.settled().problems == []


def check_a_fix(page: Page) -> None:
    page.write("a ff")
    fix = page.one("#problems .fix")
    assert fix.text == "Change to f"
    fix.click()
    page.settled()
    assert page.text == "a f"
    page.keys("CONTROL+z")
    page.settled()
    assert page.text == "a ff"


def check_words_on_what_the_caret_is_in(page: Page) -> None:
    page.caret(TEXT.index("glu") + 1)
    page.until(lambda: page.one("#help").text.startswith("glu: "))


def check_the_keyboard_alone_is_enough(page: Page) -> None:
    page.js("document.getElementById('view').focus()")
    page.keys("TAB")
    first = page.focused
    page.keys("END", "HOME")
    assert page.focused == first
    while page.focused != "a3":
        page.keys("ARROW_DOWN")
    assert page.marked("lit") == ["a", "unit"]
    assert page.node("a3").accessible_name
    page.keys("ENTER")
    assert page.js("document.activeElement.selectionStart") == TEXT.index("a f(glu)")
    page.keys("END", "m", "ARROW_LEFT", "DELETE")
    assert page.settled().text == TEXT


def check_blocks_have_their_names_where_words_are_too_small_to_be_shown(page: Page) -> None:
    near = [page.node(node).accessible_name for node in page.names(".block")]
    assert [name for name in near if "GEGLU" in name] == [near[4]]
    for _ in range(8):
        page.one("#out").click()
    assert page.js("getComputedStyle(document.querySelector('#view .block text')).display") == "none"
    assert [page.node(node).accessible_name for node in page.names(".block")] == near


def check_another_name_by_keyboard_alone(page: Page) -> None:
    page.caret(TEXT.index("unit*3") + 2)
    page.keys("F2")
    page.until(lambda: page.js("document.activeElement.id") == "new-name")
    assert page.one("#rename-title").text == "Rename definition unit"
    assert page.one("#rename-places").text == "2 places"
    page.keys("a", "ENTER")
    page.until(lambda: page.one("#rename-problem").text.endswith("cannot be called 'a': it is a block kind"))
    assert page.text == TEXT
    page.keys("BACKSPACE", *"block", "ENTER")
    page.until(lambda: page.text == TEXT.replace("unit", "block"))
    assert page.js("document.activeElement.selectionStart") == page.text.index("block*3")
    assert page.settled().names(".block") == ["f0", "a1", "f2", "a3", "f4"]
    page.keys("CONTROL+z")
    page.until(lambda: page.text == TEXT)
    page.write("# 🙂🙂\na@t f a@t")
    page.caret(len(page.text) + 2)  # a script counts each of these signs twice
    page.one("#rename").click()
    page.until(lambda: page.one("#rename-title").text == "Rename tie t")
    page.keys("ESCAPE")
    page.until(lambda: page.js("document.activeElement.tagName") == "TEXTAREA")
    page.keys("F2")
    page.until(lambda: page.js("document.activeElement.id") == "new-name")
    page.keys(*"both", "ENTER")
    page.until(lambda: page.text == "# 🙂🙂\na@both f a@both")
    page.caret(0)
    page.keys("F2")
    page.until(lambda: page.status.endswith("; definitions, labels, ties and stages can be renamed"))
    page.write("a f")
    assert page.status == ""


def check_one_dialog_at_a_time(page: Page) -> None:
    page.keys("CONTROL+k")
    page.until(lambda: page.js("document.activeElement.id") == "query")
    page.keys("CONTROL+e", "F2", "CONTROL+s", *"llama3-8b", "ENTER")
    page.until(lambda: page.text == blockdsl.zoo.entry("llama3-8b").text)


def check_colours(page: Page) -> None:
    assert page.marked("comment") == ["# a decoder"]
    assert page.marked("word") == ["set"]
    assert page.marked("option") == ["dim", "heads", "causal", "glu"]
    assert page.marked("kind") == ["a", "f", "f", "a", "f"]
    page.caret(0)
    page.driver.execute_script("document.execCommand('insertText', false, ' ')")
    assert page.marked("comment")[0].strip() == "# a decoder"  # at once, before an answer


def check_colours_of_a_long_text(page: Page) -> None:
    page.write("# " + "long " * 200 + "\n" + "a f(glu) " * 200 + "a")
    for at, typed in ((8, "very "), (2000, " a "), (1003, "f "), (990, "x\n a # ")):
        page.caret(at)
        page.driver.execute_script("document.execCommand('insertText', false, arguments[0])", typed)
        assert page.js("document.querySelector('#text pre').textContent") == page.text + " \n"
    page.settled()
    for colour in ("comment", "kind", "option"):
        found = [page.text[token.start : token.end] for token in tokens(page.text) if token.type == colour]
        assert len(found) > 1
        assert page.marked(colour) == found


def check_colours_go_along_with_what_is_in_sight(page: Page) -> None:
    numbers = [str(i) for i in range(1000, 3000)]  # all as wide, so that half of the height is half of the text
    page.write("\n".join(" ".join(f"f(mult={i})" for i in numbers[row : row + 4]) for row in range(0, 2000, 4)))

    def coloured(up_to: float) -> list[str]:
        """What has its colour when the text is scrolled so far."""
        code = """const high = document.querySelector("#text pre").offsetHeight;
            document.querySelector("#text").scrollTop = arguments[0] * high - 200"""
        page.driver.execute_script(code, up_to)
        wanted = numbers[min(1999, round(2000 * up_to))]
        page.until(lambda: wanted in page.marked("value"), f"the colour of {wanted}")
        page.until(lambda: len(page.marked("value")) < 800, "what is out of sight has none")
        return page.marked("value")

    assert "1000" not in coloured(1.0)
    assert "2999" not in coloured(0.5)
    assert coloured(0.0)[:50] == numbers[:50]
    page.caret(len(page.text))
    page.keys(" ", "f")  # which the browser scrolls to
    page.settled().until(lambda: "2999" in page.marked("value"), "the colours at the caret")


RESIZED = """
const [height, done] = arguments, view = document.querySelector("#view"), picture = view.querySelector("svg");
const frames = async (count) => { while (count--) await new Promise((resolve) => requestAnimationFrame(resolve)); };
(async () => {
    view.style.flex = "none";
    view.style.height = `${height}px`;
    await frames(4);
    let changes = 0;
    const observer = new MutationObserver((records) => { changes += records.length; });
    observer.observe(picture, {attributes: true});
    await frames(8);
    observer.disconnect();
    done(changes);
})();
"""


def check_a_picture_that_just_fits_stays_as_it_is(page: Page) -> None:
    page.write(" ".join(f"a(heads={i % 8 + 1}) f(mult={i + 1})" for i in range(30)))
    high = page.js("document.querySelector('#view > svg').getBoundingClientRect().height")
    for height in range(round(high) - 16, round(high) + 56, 4):  # with a scrollbar, without one, with one, ...
        assert page.driver.execute_async_script(RESIZED, height) == 0
    page.js("document.querySelector('#view').removeAttribute('style')")


def check_thousands_of_keystrokes(page: Page) -> None:
    page.write("")
    code = """for (let i = 0; i < 2000; i++) {
        document.execCommand(i % 7 === 6 ? "delete" : "insertText", false, "a f(glu)*2 | "[i % 13]);
    }
    document.execCommand("selectAll");
    document.execCommand("insertText", false, "a f a");"""
    page.driver.execute_script(code)
    page.settled()
    assert page.text == "a f a"
    assert page.names(".block") == ["a0", "f1", "a2"]
    assert page.problems == []


def check_200_kilobytes(page: Page) -> None:
    comment = "# " + "<b>0123456789</b> " * 11_000 + "\n"
    page.write(comment + "a f")
    assert page.names(".block") == ["a0", "f1"]
    page.keys(" ", "a")
    assert page.settled().names(".block") == ["a0", "f1", "a2"]
    page.write("a " * 99_990)
    assert "limit" in page.problems[0] or "blocks" in page.problems[0]
    page.write("a" * 200_001)
    assert page.problems == ["the text is 200,001 characters long; the limit is 200,000"]


LONG = [
    check_colours_of_a_long_text,
    check_colours_go_along_with_what_is_in_sight,
    check_thousands_of_keystrokes,
    check_200_kilobytes,
]
CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]
