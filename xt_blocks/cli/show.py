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
            "unless NO_COLOR is set. Of two streams, the encoder comes first."
        ),
        epilog='examples:\n  blockdsl show "f a f | a*6 f*6 | sandwich(6)"\n  blockdsl show "(a & f)*12" --dim 1024\n'
        "  blockdsl show path/to/config.json         a model of Hugging Face",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source.add_graph(parser)
    parser.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from blockdsl.draw.escape import wanted

    graphs, color = source.graphs(args), wanted(sys.stdout)
    ascii = args.ascii
    if not ascii and not all(output.encodable(graph.to_text()) for graph in graphs.values()):
        print("the terminal's encoding cannot show the drawing's lines; drawn in ASCII", file=sys.stderr)
        ascii = True
    texts = {name: graph.to_text(ascii=ascii, color=color) for name, graph in graphs.items()}
    print("\n\n".join(f"{name}\n{text}" if name else text for name, text in texts.items()))
    return 0
