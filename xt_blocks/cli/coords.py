"""`blockdsl coords`: does a learning rate carry over from width to width?

Owns the command's flags, the graphs of the widths and the table. The measurement is `xt_blocks.train.coords`, which is
imported when the command runs: `--help` never loads torch.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blockdsl
from blockdsl.errors import UserError

from . import output, source

if TYPE_CHECKING:
    from ..train.coords import CoordinateCheck

EPILOG = """\
Each width is trained for a few steps of Adam on random tokens, with muP (arXiv:2203.03466) from the narrowest on. Sizes
are root mean squares; a slope is of log size against log width, and near 0 is right. Heads keep their number and widen;
attn_dim_head and its like are those of the narrowest. Of the logits, it is how far they have moved.

examples:
  blockdsl coords "(a f)*2" --widths 32,64,128
  blockdsl coords "(a f)*4" --standard -o coords.png     with and without muP, and a picture
  blockdsl coords "(a f)*2" --set tie_embedding,ff_glu --json
"""


def add_parser(subparsers: Any) -> None:
    """Add the `coords` command to argparse's subparsers."""
    parser = subparsers.add_parser(
        "coords",
        help="check that block outputs keep their size as the model widens",
        description="The coordinate check of muP: the size of what each block adds, by width, after a few steps.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source.add_pattern(parser)
    add = parser.add_argument
    add("--widths", default="64,128,256,512", metavar="N,N", help="values of dim (default: 64,128,256,512)")
    add("--heads", type=int, metavar="N", help="attention heads, of the narrowest (default: the pattern's, else 4)")
    add("--set", action="append", default=[], metavar="OPTIONS", help="any other settings, as in --set ff_mult=2")
    add("--steps", type=int, default=4, metavar="N", help="steps of Adam (default: 4)")
    add("--lr", type=float, default=1e-2, help="learning rate of the narrowest (default: 0.01)")
    add("--seq-len", type=int, default=32, metavar="N", help="tokens a row, of four rows (default: 32)")
    add("--seed", type=int, default=0, help="of weights and tokens (default: 0)")
    add("--standard", action="store_true", help="measure the same without muP beside it")
    add("-o", "--out", type=Path, metavar="FILE", help="also draw it: a .png, .svg or .pdf; or - for PNG on stdout")
    add("--json", action="store_true", help="print JSON, with the sizes after each step")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Raises UserError when a flag is invalid, or the pattern is no language model."""
    for name, value in (("steps", args.steps), ("seq-len", args.seq_len), ("lr", args.lr)):
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"--{name} must be more than 0, not {value:g}")
    if args.json and args.out == output.STDOUT:
        raise UserError("--json and -o - both write to standard output; give the picture a file")
    form = None if args.out is None else output.image_form(args.out)
    graphs = _graphs(args)
    from .. import train

    train.limit_threads()
    train.check_fits(graphs[max(graphs)])
    measured = {"steps": args.steps, "lr": args.lr, "seq_len": args.seq_len, "seed": args.seed}
    ways = (False, True) if args.standard else (False,)
    checks = [train.check_coordinates(graphs, standard=standard, **measured) for standard in ways]
    if args.json:
        print(json.dumps({**measured, "checks": [_as_json(check) for check in checks]}, indent=1))
    elif args.out != output.STDOUT:
        print("\n\n".join(_table(check, args.steps) for check in checks))
    if form is not None:
        output.write(args.out, train.plot_coordinates(checks, form), sys.stderr if args.json else None)
    return 0


def _graphs(args: argparse.Namespace) -> dict[int, blockdsl.BlockGraph]:
    """The language model of each width."""
    try:
        widths = sorted({int(width) for width in args.widths.split(",")})
    except ValueError:
        widths = []
    if len(widths) < 2 or widths[0] < 1:
        raise UserError(f"--widths {args.widths}: give at least two, as in 64,128,256")
    pattern = source.read_pattern(args)
    if pattern.encoder is not None:
        raise UserError("the check is of one stream of tokens, and this pattern has two")
    tokens = {"num_tokens": 256, "max_seq_len": args.seq_len}
    given = source.settings(args, pattern)
    if any("dim" in blockdsl.parse_settings(text) for text in args.set):
        raise UserError("--set dim: --widths says the values of dim")
    every = {"heads": 4, "attn_dim_head": None, **tokens, **pattern.settings, **given}
    out = {}
    for width in widths:
        own = {name: every.get(name, size) for name, size in _head_sizes().items()}
        wider = {name: size * width // widths[0] for name, size in own.items() if size is not None}
        try:
            out[width] = blockdsl.compile(pattern, **{**every, **wider, "dim": width})
        except TypeError as error:  # an unknown setting; the message names the nearest one
            raise UserError(f"--set: {error}") from None
    graph = out[widths[0]]
    end = graph.nx.nodes[graph.end]
    if graph.nodes("context") or graph.nodes("condition") or end["logits_dim"] is None or end["pool"] is not None:
        raise UserError("the check is of a model that reads tokens alone and gives the logits of each")
    longest = graph.nx.nodes[graph.start]["max_seq_len"]
    if longest and longest < args.seq_len:
        raise UserError(f"--seq-len {args.seq_len} is more than max_seq_len={longest}")
    return out


def _head_sizes() -> dict[str, Any]:
    """The settings that say how many features a head of each kind has, with their defaults."""
    options = (option for kind in blockdsl.kinds().values() for option in kind.options if option.name == "dim_head")
    return {option.setting: option.default for option in options if option.setting is not None}


def _as_json(check: CoordinateCheck) -> dict[str, Any]:
    slopes = {block: None if math.isnan(slope) else slope for block, slope in check.slopes().items()}
    return {"name": check.name, "sizes": check.sizes, "slopes": slopes, "verdict": check.verdict()}


def _table(check: CoordinateCheck, steps: int) -> str:
    widths = [*check.sizes]
    rows = [("block", *(str(width) for width in widths), "slope")]
    for block, slope in check.slopes().items():
        sizes = (f"{check.sizes[width][-1][block]:.4g}" for width in widths)
        rows.append((block, *sizes, f"{slope:+.2f}"))
    sides = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(sides[0]), *(c.rjust(w) for c, w in zip(row[1:], sides[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([f"{check.name}, after {steps} steps", *lines, check.verdict()])
