"""Every Python block of README and docs runs, and what a console block shows is what is printed.

Blocks of one page share a namespace, as a reader types them. A block that is not run has its reason right above it.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import blockdsl

from . import pages
from .pages import DOCS, README, ROOT, Block, blocks, output_of, run_python

PAGES = pages.pages()
CONSOLE = [(page, block) for page in PAGES for block in blocks(page, "console")]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_python_blocks_run(page: Path) -> None:
    before = blockdsl.kinds()
    try:
        assert run_python(page, {}) > 0
    finally:
        for kind in blockdsl.kinds().keys() - before:
            blockdsl.unregister(kind)


QUOTED = [(page, block) for page in PAGES for block in blocks(page) if "from" in block.notes]


@pytest.mark.parametrize(("page", "block"), QUOTED, ids=[f"{name(page)}:{block.line}" for page, block in QUOTED])
def test_quoted_code_is_in_its_file(page: Path, block: Block) -> None:
    assert block.body in (ROOT / block.notes["from"]).read_text(encoding="utf-8")


@pytest.mark.parametrize(("page", "block"), CONSOLE, ids=[f"{name(page)}:{block.line}" for page, block in CONSOLE])
def test_a_console_block_shows_what_is_printed(page: Path, block: Block) -> None:
    command, _, output = block.body.partition("\n")
    assert output == output_of(command.removeprefix("$ ")), "python -m tests.docs writes it anew"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_are_of_known_languages_and_reasons_are_given(page: Path) -> None:
    for block in blocks(page):
        assert block.language in ("python", "console", "sh", "text", "pattern"), f"{name(page)}:{block.line}"
        reason = block.notes.get("not run")
        assert reason is None or len(reason.split()) > 2, f"{name(page)}:{block.line} is not run: why?"


def test_a_block_that_fails_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\ntext\n\n```python\nassert x == 2\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError) as raised:
        run_python(page, {})
    assert raised.traceback[-1].lineno == 7  # counted from 0: the line on the page
    page.write_text("<!-- not run: it would take a week -->\n```python\nassert False\n```\n", encoding="utf-8")
    assert run_python(page, {}) == 0


# README ---------------------------------------------------------------------------------------------------------------


def test_readme_is_short_and_has_the_two_commands_and_five_examples() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    assert [block.body.strip() for block in blocks(README, "sh")] == [
        "python -m pip install -c constraints.txt . && blockdsl train",
        "python -m pip install -c constraints.txt '.[test]' && python -m pytest",
    ]
    assert [int(n) for n in re.findall(r"^\*\*(\d)\. ", text, re.MULTILINE)] == [1, 2, 3, 4, 5]


SITE = (
    r"https://(?:raw\.githubusercontent\.com/xt-blocks/xt-blocks|github\.com/xt-blocks/xt-blocks/(?:blob|tree))/main/"
)


def links(page: Path) -> list[str]:
    """What a page links to, pictures too."""
    return re.findall(r"\[[^]]*\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))


def test_links_of_readme_are_absolute() -> None:
    """The package index shows README without the repository around it."""
    headings = re.findall(r"^##+ (.*)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {"#" + re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert links(README)
    for link in links(README):
        assert link.startswith("https://") or link in anchors, link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_into_the_repository_lead_to_files(page: Path) -> None:
    for link in links(page):
        if re.match(SITE, link):
            assert (ROOT / re.sub(SITE, "", link)).exists(), link
        elif not re.match(r"https?:|#", link):
            assert (page.parent / link.partition("#")[0]).exists(), link


# Sentences ------------------------------------------------------------------------------------------------------------


def sentences(page: Path) -> list[str]:
    """The sentences of a page's prose: no code, tables, headings or comments."""
    text = re.sub(r"<!--.*?-->", "", pages.BLOCK.sub("", page.read_text(encoding="utf-8")), flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not re.match(r"\s*(\||#|:::|!\[|    )", line)]
    paragraphs = re.split(r"\n\s*\n|\n(?=[-*] )", "\n".join(lines))
    return [sentence for paragraph in paragraphs for sentence in re.split(r"(?<=[.:?!])\s+", paragraph.strip())]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_sentences_take_two_lines_at_most(page: Path) -> None:
    for sentence in sentences(page):
        shown = re.sub(r"\]\([^)]*\)", "]", sentence)
        assert len(shown) <= 240, f"{name(page)}: {shown}"


@pytest.mark.parametrize("package", ["blockdsl", "xt_blocks"])
def test_every_public_name_is_on_the_page_of_its_package(package: str) -> None:
    shown = re.findall(
        rf"^::: {package}\.(\w+)$", (DOCS / "api" / f"{package}.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(shown) == sorted(import_module(package).__all__)


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
