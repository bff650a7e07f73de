"""`blockdsl show`: the drawing in the terminal."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from . import output, source


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "show",
        help="draw a pattern",
        description=(
            "Draw a pattern's blocks: stages, parallel branches, ties, and each repeat once. In colour on a terminal,\n"
            "unless NO_COLOR is set."
        ),
        epilog='examples:\n  blockdsl show "f a f | a*6 f*6 | sandwich(6)"\n  blockdsl show "(a & f)*12" --dim 1024',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source.add_graph(parser)
    parser.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from blockdsl.draw.escape import wanted

    graph, color = source.graph(args), wanted(sys.stdout)
    text = graph.to_text(ascii=args.ascii, color=color)
    if not args.ascii and not output.encodable(text):
        print("the terminal's encoding cannot show the drawing's lines; drawn in ASCII", file=sys.stderr)
        text = graph.to_text(ascii=True, color=color)
    print(text)
    return 0
