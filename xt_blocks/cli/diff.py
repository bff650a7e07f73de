"""`blockdsl diff`: what differs between two patterns."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockdsl.errors import UserError

from . import output, source

if TYPE_CHECKING:
    from blockdsl.api import BlockGraph

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
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="also draw both side by side: x.svg, x.html; or - for only the SVG, on standard output",
    )
    parser.set_defaults(run=run, fault=FAULT)


def run(args: argparse.Namespace) -> int:
    from blockdsl.draw.escape import wanted

    if args.before == args.after == "-":
        raise UserError("only one of the two patterns can come from standard input")
    before, after = (_graph(args, given) for given in (args.before, args.after))
    found = before.diff(after, args.seq_len)
    if args.json and args.out == output.STDOUT:
        raise UserError("--json and -o - both write to standard output; give one")
    if args.out is not None:
        forms = {".svg": found.to_svg, ".html": found.to_html}
        suffix = ".svg" if args.out == output.STDOUT else args.out.suffix.lower()
        if suffix not in forms:
            raise UserError(f"{args.out}: the picture's name ends in {' or '.join(forms)}")
        drawn = forms[suffix](seq_len=args.seq_len)
        output.write(args.out, (drawn.removesuffix("\n") + "\n").encode(), sys.stderr)
    text = found.to_json() if args.json else found.to_text(color=wanted(sys.stdout))
    if args.out != output.STDOUT:
        print(text)
    return 1 if found else 0


def _graph(args: argparse.Namespace, given: str) -> BlockGraph:
    args.pattern = given
    return source.graph(args)
