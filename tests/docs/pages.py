"""The Markdown pages and the fenced blocks on them.

A comment right above a block keeps it from being run: `<!-- not run: the reason -->` always, `<!-- needs: package -->`
where that package is not installed, and `<!-- from: path -->` since it is quoted from that file.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"

BLOCK = re.compile(
    r"^(?:<!-- (?P<note>not run|needs|from): (?P<why>[^\n]*) -->\n+)?```(?P<language>[\w.]*)(?P<more>[^\n]*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        line: where its body starts on the page.
        notes: what the comment above it says, by its first words.
    """

    language: str
    body: str
    line: int
    notes: dict[str, str]

    @property
    def runs(self) -> bool:
        if not self.notes:
            return True
        return "needs" in self.notes and importlib.util.find_spec(self.notes["needs"]) is not None


def pages() -> list[Path]:
    """README first, then every page of the documentation."""
    return [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """Those of a page, in order; of one language where it is given."""
    text = page.read_text(encoding="utf-8")
    return [block for block in _blocks(text) if language in (None, block.language)]


def _blocks(text: str) -> Iterator[Block]:
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("body")) + 1
        notes = {found["note"]: found["why"]} if found["note"] else {}
        yield Block(found["language"], found["body"], line, notes)


def run_python(page: Path, namespace: dict[str, object]) -> int:
    """Run the Python blocks of a page in one namespace, as a reader who types them would; returns how many ran.

    A traceback names the page and the line on it.
    """
    chosen = [block for block in blocks(page, "python") if block.runs]
    for block in chosen:
        source = "\n" * (block.line - 1) + block.body
        exec(compile(source, str(page), "exec"), namespace)
    return len(chosen)


def output_of(command: str) -> str:
    """What a console command prints, errors included, in a process of its own."""
    words = shlex.split(command)
    programs = {
        "python": [sys.executable],
        "blockdsl": [sys.executable, "-c", "import sys; from xt_blocks.cli import main; sys.exit(main())"],
    }
    run = subprocess.run(
        [*programs[words[0]], *words[1:]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        timeout=120,
    )
    return run.stdout.decode()


def with_outputs(text: str) -> str:
    """A page's text with the output of each console block as it is printed now."""

    def fresh(found: re.Match[str]) -> str:
        if found["language"] != "console" or found["note"]:
            return found[0]
        command = found["body"].partition("\n")[0]
        return f"```console\n{command}\n{output_of(command.removeprefix('$ '))}```"

    return BLOCK.sub(fresh, text)
