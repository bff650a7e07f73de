"""`blockdsl draw`: the picture as a file; the file's name says in which form."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from . import source

if TYPE_CHECKING:
    from ..graph import BlockGraph

# Suffix → the graph's method that writes this form, and whether it takes a picture's options.
FORMS = {
    ".svg": ("to_svg", True),
    ".png": ("to_png", True),
    ".html": ("to_html", False),
    ".dot": ("to_dot", False),
    ".mmd": ("to_mermaid", False),
    ".txt": ("to_text", False),
}
PICTURED = ("unfold", "detail", "color", "seq_len")
DETAILS = ("block", "op")
COLORS = ("kind", "params", "flops", "stage", "tied")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "draw",
        help="write a picture of a pattern or a run",
        description="Draw a pattern's blocks into a file: SVG, PNG or text, as its name ends.",
        epilog=(
            'examples:\n  blockdsl draw "(a f)*6" -o decoder.svg\n'
            "  blockdsl draw model.pattern -o model.png --detail op\n"
            "  blockdsl draw runs/1 -o run.svg --color params"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "pattern",
        metavar="PATTERN",
        nargs="?",
        default="-",
        help="the pattern's text; or the path of a file, of a graph in JSON, or of a run's folder; or - for standard "
        "input",
    )
    source.add_settings(parser)
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="FILE", help="where to: x.svg, x.png, x.txt")
    parser.add_argument("--unfold", action="store_true", help="draw every block, not each repeat once")
    parser.add_argument("--detail", choices=DETAILS, help="op: open each block to its operations")
    parser.add_argument("--color", choices=COLORS, help="what the colour of a block says (default: kind)")
    parser.add_argument("--seq-len", type=int, metavar="N", help="tokens a row, of the FLOPs (default: 1024)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..graph import BlockGraph

    forms = {suffix: form for suffix, form in FORMS.items() if hasattr(BlockGraph, form[0])}
    suffix = args.out.suffix.lower()
    if suffix not in forms:
        raise UserError(f"{args.out}: a picture's name ends in {', '.join(forms)}")
    method, pictured = forms[suffix]
    options = {name: value for name in PICTURED if (value := getattr(args, name)) not in (None, False)}
    if options and not pictured:
        given = " and ".join(f"--{name.replace('_', '-')}" for name in options)
        raise UserError(f"{given}: {suffix} has none of it; .svg and .png have")
    drawn = getattr(graph(args), method)(**options)
    if isinstance(drawn, str):
        drawn = (drawn.removesuffix("\n") + "\n").encode()
    try:
        args.out.write_bytes(drawn)
    except OSError as error:
        raise UserError(f"cannot write {args.out}: {error.strerror}") from None
    return 0


def graph(args: argparse.Namespace) -> BlockGraph:
    """The graph that the command line names.

    Raises:
        UserError: a file cannot be read, or settings are given beside a graph that has them all.
    """
    from .. import compile
    from ..graph import BlockGraph

    path = Path(args.pattern)
    stored = path / "graph.json" if path.is_dir() and (path / "graph.json").is_file() else path
    if stored.suffix == ".json" and stored.is_file():
        given = [f"--{name}" for name in ("dim", "heads", "causal", "set") if getattr(args, name)]
        if given:
            raise UserError(f"{path} is a graph with all its settings; leave {' and '.join(given)} out")
        try:
            return BlockGraph.from_json(stored.read_text(encoding="utf-8"))
        except UnicodeError:
            raise UserError(f"{stored} is not text in UTF-8") from None
        except OSError as error:
            raise UserError(f"cannot read {stored}: {error.strerror}") from None
    pattern = source.read_pattern(args)
    return compile(pattern, **source.settings(args, pattern))
