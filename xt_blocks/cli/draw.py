"""`blockdsl draw`: a picture as a file, in the format of its suffix."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from blockdsl.draw.choices import COLORS, DETAILS
from blockdsl.errors import UserError

from . import picture, source
from .record import SHOWN as OVERLAYS

if TYPE_CHECKING:
    from blockdsl.api import BlockGraph
    from blockdsl.measurement import Measurement


class Form(NamedTuple):
    """The graph's method that writes a form, and which of the options it takes."""

    method: str
    options: tuple[str, ...] = ()


PAGED = ("unfold", "detail", "color", "overlay", "seq_len")
PICTURED = (*PAGED, "columns", "theme")
FORMS = {
    ".svg": Form("to_svg", PICTURED),
    ".png": Form("to_png", PICTURED),
    ".pdf": Form("to_pdf", PICTURED),
    ".html": Form("to_html", PAGED),
    ".dot": Form("to_dot", ("unfold",)),
    ".mmd": Form("to_mermaid", ("unfold",)),
    ".txt": Form("to_text", ("overlay",)),
}


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "draw",
        help="write a picture of a pattern or a run",
        description="Draw a pattern's blocks into a file: SVG, PNG, PDF, HTML, DOT, Mermaid or text, as its name ends.",
        epilog=(
            'examples:\n  blockdsl draw "(a f)*6" -o decoder.svg\n'
            "  blockdsl draw model.pattern -o model.png --detail op\n"
            "  blockdsl draw runs/1 -o run.svg --color params\n"
            '  blockdsl draw "(a f)*6" -o - --format dot | dot -Tpdf > decoder.pdf\n'
            '  blockdsl draw runs/1 -o run.svg --overlay stream_norm --text "def main"'
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source.add_graph(parser)
    picture.add(parser, [*FORMS], "where to", required=True)
    parser.add_argument(
        "--unfold",
        action=argparse.BooleanOptionalAction,
        help="draw every block, not each repeat once (default: with --overlay)",
    )
    parser.add_argument("--columns", type=int, metavar="N", help="of a stack (default: one, or several for a long one)")
    parser.add_argument("--detail", choices=DETAILS, help="op: open each block to its operations")
    parser.add_argument("--color", choices=COLORS, help="what the colour of a block shows (default: kind)")
    parser.add_argument("--seq-len", type=int, metavar="N", help="tokens a row, of the FLOPs (default: 1024)")
    parser.add_argument(
        "--overlay", choices=OVERLAYS, help="colour the blocks of a trained run by what they do with a text"
    )
    parser.add_argument(
        "--text",
        metavar="TEXT",
        help="what the run's model reads for --overlay (default: text that it did not train on)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    suffix = picture.ending(args, [*FORMS])
    form = FORMS[suffix]
    options = {name: value for name in PICTURED if (value := getattr(args, name)) is not None}
    if other := [name for name in options if name not in form.options]:
        given = " and ".join(f"--{name.replace('_', '-')}" for name in other)
        raise UserError(f"{given}: not for {suffix} files")
    if args.overlay is not None:
        options["overlay"] = overlay(args)
    elif args.text is not None:
        raise UserError("--text needs --overlay, which reads it")
    if suffix in (".dot", ".mmd"):
        options = {"fold": not args.unfold}
    graphs = source.graphs(args)
    drawn = getattr(graphs[""], form.method)(**options) if "" in graphs else _together(graphs, suffix, options)
    picture.write(args.out, drawn)
    return 0


def _together(graphs: dict[str, BlockGraph], suffix: str, options: dict[str, Any]) -> str | bytes:
    """Two encoders, side by side."""
    from blockdsl.draw import page, side_by_side
    from blockdsl.draw.forms.pdf import pdf
    from blockdsl.draw.forms.png import png

    if suffix == ".txt":
        return "\n\n".join(f"{name}\n{graph.to_text()}" for name, graph in graphs.items())
    if suffix in (".dot", ".mmd"):
        raise UserError(f"{' and '.join(graphs)} are two graphs, which {suffix} files do not take; .svg and .html do")
    if suffix == ".html":
        return page(graphs, **options)
    if suffix == ".svg":
        return side_by_side(graphs, **options)
    return (png if suffix == ".png" else pdf)(side_by_side(graphs, **{"theme": "light", **options}))


def overlay(args: argparse.Namespace) -> Measurement:
    """What the blocks of a run do with a text."""
    from ..measure.runs import record_of_run

    if args.color is not None:
        raise UserError("give --overlay or --color; a block has one colour")
    path, text = Path(args.pattern), None if args.text is None else args.text.encode()
    if not path.is_dir():
        raise UserError(f"--overlay needs a trained run's folder, and {args.pattern} is none")
    return record_of_run(path, text)[args.overlay]
