"""`blockdsl attention`: where a trained model looks, as an image.

Owns the command's flags. The rest is `xt_blocks`', which is imported when the command runs: `--help` never loads torch.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import output

EPILOG = """\
A token is a byte. Rows are queries, columns are keys; memory key-values come first. Blocks have their names in the
run's graph, a kind and an index: a0, f1, a2, ...

examples:
  blockdsl attention runs/first --block a2 --head 0 --text "def f(x): return x"
  blockdsl attention runs/first --block a0 --text "the quick brown fox" -o map.svg
"""


def add_parser(subparsers: Any) -> None:
    """Add the `attention` command to argparse's subparsers."""
    parser = subparsers.add_parser(
        "attention",
        help="draw where a trained model looks",
        description="Draw the attention weights of a block of a run's model, for a text, as an image.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="the run's folder, as in runs/first")
    parser.add_argument("--block", required=True, metavar="NODE", help="the attention block, as in a2")
    parser.add_argument("--head", type=int, default=0, metavar="N", help="which head, from 0 on (default: 0)")
    parser.add_argument("--text", required=True, help="what the model reads")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("attention.png"),
        metavar="FILE",
        help="where the image goes, a .png, .svg or .pdf; or - for standard output, as PNG (default: attention.png)",
    )
    parser.add_argument("--device", default="cpu", help="where to run, as in cuda (default: cpu)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Raises UserError when a flag or the run folder is invalid."""
    from .. import train

    train.limit_threads()
    train.check_device(args.device)
    text = args.text.encode("utf-8", errors="surrogateescape")
    form = output.image_form(args.out)
    image = train.draw_attention(args.run_folder, text, args.block, args.head, form, args.device)
    output.write(args.out, image)
    return 0
