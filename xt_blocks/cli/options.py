"""`blockdsl options`: the reference of every option, printed."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import asdict
from typing import Any

from blockdsl.errors import did_you_mean, shortened
from blockdsl.reference import Entry, entries, find, of_kind
from blockdsl.registry.kinds import kinds


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "options",
        help="list the options, or explain one",
        description=(
            "The options by area: the keyword, what a pattern writes, the values and the default. With a NAME,\n"
            "everything about that option, or about the options of that kind of block or area."
        ),
        epilog=(
            "examples:\n  blockdsl options\n  blockdsl options attn_sparse_topk    a keyword\n"
            "  blockdsl options dropout    an option of two kinds of block: both are shown\n"
            "  blockdsl options macaron    an ordering, and the macro\n"
            "  blockdsl options rope       a name that others have for it\n"
            "  blockdsl options a          the options of a kind of block"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    name = parser.add_argument(
        "name", metavar="NAME", nargs="?", help="a keyword, an option of blocks, a macro, a kind of block, or an area"
    )
    name.completer = lambda **_: sorted(_names())  # which argcomplete reads
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    found = entries() if args.name is None else find(args.name)
    listed = not found or args.name is None
    if not found:
        found = of_kind(args.name)
    if not found:
        hint = did_you_mean(args.name, _names()) or "`blockdsl options` lists them all"
        print(f"blockdsl options: there is no option '{shortened(args.name)}'; {hint}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps([asdict(entry) for entry in found], indent=1, ensure_ascii=False))
    elif listed:
        print("\n\n".join(_area(area, list(group)) for area, group in itertools.groupby(found, lambda e: e.area)))
    else:
        print("\n\n".join(map(_whole, found)))
    return 0


def _names() -> set[str]:
    own = {name for entry in entries() for name in (entry.name, entry.keyword) if name}
    return own | {entry.area for entry in entries()} | {*kinds()}


def _area(title: str, group: list[Entry]) -> str:
    keyword = max(len(entry.keyword or "") for entry in group)
    pattern = max(len(entry.pattern) for entry in group)
    lines = [title]
    for entry in group:
        values = f"{entry.values}; default {entry.default}" if entry.default else entry.values
        lines.append(f"  {entry.keyword or '':{keyword}}  {entry.pattern:{pattern}}  {values}")
        lines.append(f"      {entry.doc}{''.join(f' ({paper})' for paper in entry.papers)}")
    return "\n".join(lines)


def _whole(entry: Entry) -> str:
    everywhere = f", or for every block: {entry.setting}" if entry.setting not in ("", entry.pattern) else ""
    rows = {
        "area": entry.area,
        "blocks": ", ".join(f"{name} ({kinds()[name].title})" for name in entry.kinds),
        "keyword": entry.keyword_example,
        "pattern": entry.pattern + everywhere,
        "example": entry.example,
        "values": entry.values,
        "default": entry.default,
        "paper": ", ".join(entry.papers),
    }
    lines = [entry.keyword or entry.name, f"  {entry.doc}"]
    return "\n".join([*lines, *(f"  {title:8} {text}" for title, text in rows.items() if text)])
