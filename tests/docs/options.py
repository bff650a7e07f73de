"""The page of the options, written from the tables in which they are declared."""

from __future__ import annotations

import itertools
import json
import re

from .pages import DOCS, output_of

PAGE = DOCS / "options.md"

HEAD = """\
# Options

<!-- written by `python -m tests.docs` from the tables in which the options are declared -->

An option is declared once. The language, the keyword arguments, the costs, the errors and this page read that
declaration.

- The **keyword** sets it for the whole stack: `Decoder(dim=512, depth=6, attn_sparse_topk=8)`.
- The **pattern** sets it for one block, as in `a(sparse_topk=8)`, or for the stack by `set`.
- **Values** are what is allowed. **Default** is what holds when neither the block nor the stack says otherwise.

`set attn_sparse_topk=8;` in front of a pattern is the keyword `attn_sparse_topk=8`: every keyword can be set that way.
`blockdsl options sparse_topk` prints all there is to say of one option.
[Which options go together](compatibility.md) lists the few pairs that are refused.
"""


def page() -> str:
    """The whole page, from a process that has no kinds but the built-in ones."""
    entries = json.loads(output_of("blockdsl options --json"))
    parts = [HEAD]
    for area, group in itertools.groupby(entries, key=lambda entry: entry["area"]):
        rows = "\n".join(map(_row, group))
        head = "| keyword | pattern | what it does | values | default |\n| --- | --- | --- | --- | --- |"
        parts.append(f"## {area[0].upper()}{area[1:]}\n\n{head}\n{rows}\n")
    return "\n".join(parts)


def _row(entry: dict[str, str]) -> str:
    keyword = f"`{entry['keyword']}`" if entry["keyword"] else ""
    default = f"`{entry['default']}`" if entry["default"] else ""
    doc = plain(entry["doc"]) + (f" ({', '.join(map(linked, entry['papers']))})" if entry["papers"] else "")
    cells = (keyword, code(entry["pattern"]), doc, plain(entry["values"]), default)
    return f"| {' | '.join(cells)} |"


def code(text: str) -> str:
    """As code in a cell of a table, in every flavour of Markdown."""
    return f"`{text}`" if "|" not in text else f"<code>{text.replace('|', '&#124;')}</code>"


def plain(text: str) -> str:
    """As words in a cell of a table: signs stand for themselves."""
    return re.sub(r"[|*_<]", r"\\\g<0>", text)


def linked(paper: str) -> str:
    """`RealFormer, arXiv:2012.11747` with a link on the identifier."""
    sites = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}
    return re.sub(r"(arXiv|doi):([^\s,]+)", lambda found: f"[{found[0]}]({sites[found[1]]}{found[2]})", paper)
