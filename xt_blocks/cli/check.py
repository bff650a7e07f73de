"""`blockdsl check`: is a pattern right, and if not, where."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, NamedTuple

from blockdsl.editor.notes import notes
from blockdsl.graph.resolve import resolve

from . import source


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "check",
        help="say whether a pattern is right, and where it is not",
        description="Check a pattern or a graph. Prints what it makes; or the fault, underlined, and exits with 1.",
        epilog=(
            'examples:\n  blockdsl check "(a f)*6"\n  blockdsl check model.pattern --json\n'
            "  blockdsl check runs/1                     a run's folder, or a graph in JSON\n"
            '  echo "a f" | blockdsl check\n'
            '  blockdsl check --from megatron "M-M*-|M-M*E"'
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source.add_graph(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, of a fault too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if source.is_stored(args.pattern):
        found = [
            Found(
                graph.pattern,
                sum(len(stream.nodes("block")) for stream in graph.streams().values()),
                sum(len(stream.stages) for stream in graph.streams().values()),
                name,
            )
            for name, graph in source.graphs(args).items()
        ]
        return _tell(args, found, [])
    pattern = source.read_pattern(args)
    settings = source.settings(args, pattern)
    stack = resolve(pattern, **settings)
    said = [note.message for note in notes(pattern, stack, settings)]
    return _tell(args, [Found(str(pattern), len(pattern.layer_types), len(pattern.stage_names))], said)


class Found(NamedTuple):
    """What a text makes; `name` says which of two it is, as an encoder."""

    pattern: str
    blocks: int
    stages: int
    name: str = ""


def _tell(args: argparse.Namespace, found: list[Found], notes: list[str]) -> int:
    if args.json:
        each = {f.name: {"pattern": f.pattern, "blocks": f.blocks, "stages": f.stages} for f in found}
        print(json.dumps({"ok": True, **each.get("", each), "notes": notes}, indent=1))
        return 0
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    for name, blocks, stages in ((f.name, f.blocks, f.stages) for f in found):
        what = f"ok: {name}: " if name else "ok: "
        print(f"{what}{blocks:,} block{'s' * (blocks != 1)} in {stages:,} stage{'s' * (stages != 1)}")
    return 0
