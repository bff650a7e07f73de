"""`blockdsl importance`: what each block is worth to a trained model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from blockdsl.errors import UserError

from . import measured

SHOWN = ("difference", "loss")
EPILOG = """\
A block that is left out lets the stream pass as it came. The loss is that of text which the run did not train on, in
bits a byte; each block's row has the loss without it, and how much more that is than the whole model's. What others
read of the block, such as its keys and values, stays; the last lines say so.

examples:
  blockdsl importance runs/1
  blockdsl importance runs/1 --tokens 16384 -o importance.svg
  blockdsl importance runs/1 --json
"""


def add_parser(subparsers: Any) -> None:
    """Add the `importance` command to argparse's subparsers."""
    parser = subparsers.add_parser(
        "importance",
        help="measure the loss of a trained model without each block",
        description="The validation loss of a run's model with each of its blocks left out, one at a time.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="the run's folder, as in runs/first")
    parser.add_argument(
        "--tokens",
        type=int,
        default=2**14,
        metavar="N",
        help="how many tokens are predicted at most, spread over what was held out (default: 16384)",
    )
    parser.add_argument("--device", default="cpu", help="where to run, as in cuda (default: cpu)")
    measured.add_arguments(parser, SHOWN)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Raises UserError when a flag or the run folder is invalid."""
    measured.check(args)
    if args.tokens < 1:
        raise UserError(f"--tokens must be at least 1, not {args.tokens}")
    from .. import train
    from ..measure.runs import importance_of_run

    train.limit_threads()
    train.check_device(args.device)
    return measured.show(args, importance_of_run(args.run_folder, args.tokens, args.device))
