"""`blockdsl diff`: what differs between two patterns."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from blockdsl.errors import UserError

from . import output, picture, source

if TYPE_CHECKING:
    from blockdsl.api import BlockGraph, GraphDiff

FAULT = 2  # status; 1 says that they differ


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "diff",
        help="show what differs between two patterns",
        description=(
            "Match the blocks of two patterns in order and show what is new, gone or changed: blocks and options,\n"
            "stages, settings, wiring, and the costs before and after. A change that many blocks have is one line.\n"
            "Exits with 0 when both are the same model, with 1 when they differ, and with 2 on an error."
        ),
        epilog=(
            'examples:\n  blockdsl diff "(a f)*12" "(a(heads=16) f)*12" --dim 1024 -o change.svg\n'
            '  blockdsl diff model.pattern "sandwich(6)" --json\n'
            "  blockdsl diff runs/1 runs/2"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("before", metavar="PATTERN", help=source.GRAPH)
    parser.add_argument("after", metavar="OTHER", help="the same, for the pattern to compare with")
    source.add_settings(parser)
    parser.add_argument("--seq-len", type=int, default=1024, metavar="N", help="tokens a row (default: 1024)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    picture.add(parser, picture.IMAGES, "also draw both side by side")
    parser.set_defaults(run=run, fault=FAULT)


def run(args: argparse.Namespace) -> int:
    from blockdsl.draw.escape import wanted

    if args.before == args.after == "-":
        raise UserError("only one of the two patterns can come from standard input")
    before, after = (_graphs(args, given) for given in (args.before, args.after))
    if before.keys() != after.keys():
        raise UserError("one is a pair of encoders and the other is not; compare two that are")
    found = {name: graph.diff(after[name], args.seq_len) for name, graph in before.items()}
    if picture.is_wanted(args):
        if "" not in found:
            raise UserError("-o draws the difference of two graphs, and these are two encoders each")
        picture.draw(args, found[""], seq_len=args.seq_len)
    if args.out != output.STDOUT:
        print(_json(found) if args.json else _text(found, wanted(sys.stdout)))
    return 1 if any(found.values()) else 0


def _json(found: dict[str, GraphDiff]) -> str:
    each = {name: json.loads(difference.to_json()) for name, difference in found.items()}
    return found[""].to_json() if "" in found else json.dumps(each, indent=1)


def _text(found: dict[str, GraphDiff], color: bool) -> str:
    texts = {name: difference.to_text(color=color) for name, difference in found.items()}
    return "\n\n".join(f"{name}\n{text}" if name else text for name, text in texts.items())


def _graphs(args: argparse.Namespace, given: str) -> dict[str, BlockGraph]:
    args.pattern = given
    return source.graphs(args)
