"""`blockdsl record`: what the blocks of a trained model do with a text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import measured

SHOWN = ("stream_norm", "branch_norm", "attention_entropy")
EPILOG = """\
stream_norm: the size of the stream that a block reads, as a root mean square; branch_norm: of what it adds;
attention_entropy: how widely its heads look, in nats, the mean of all. --json has the entropy of each head, and what a
kind counts, as the load of experts.

examples:
  blockdsl record runs/1 --text "def main"
  blockdsl record runs/1 --show branch_norm -o norms.svg
  blockdsl record runs/1 --json
"""


def add_parser(subparsers: Any) -> None:
    """Add the `record` command to argparse's subparsers."""
    parser = subparsers.add_parser(
        "record",
        help="show what the blocks of a trained model do with a text",
        description="Sizes of the stream and of what each block adds to it, and the entropy of attention, on a text.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="the run's folder, as in runs/first")
    parser.add_argument("--text", help="what the model reads (default: text that it did not train on)")
    parser.add_argument("--device", default="cpu", help="where to run, as in cuda (default: cpu)")
    measured.add_arguments(parser, SHOWN)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Raises UserError when a flag or the run folder is invalid."""
    measured.check(args)
    from .. import train
    from ..measure.runs import record_of_run

    train.limit_threads()
    train.check_device(args.device)
    text = None if args.text is None else args.text.encode("utf-8", errors="surrogateescape")
    return measured.show(args, record_of_run(args.run_folder, text, args.device))
