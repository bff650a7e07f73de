"""`blockdsl profile`: the time and the memory of each block."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from blockdsl.errors import UserError

from . import measured, source

SHOWN = ("time", "forward", "backward", "saved", "peak", "flops", "rate", "of_peak")
EPILOG = """\
Blocks are timed where they run, in passes of the whole model. The table has the median of the passes; its last lines
tell what a pass takes in which nothing is measured, and how much of that the blocks explain. saved: bytes kept for the
backward pass; peak: the most memory in use while the block ran, on a GPU; rate: FLOP/s; of_peak: of the device's best.

examples:
  blockdsl profile "(a f)*6" --dim 256 --seq-len 512
  blockdsl profile zoo:gpt2 --batch 4 --device cuda --precision bf16 -o time.svg
  blockdsl profile runs/1 --show saved -o memory.html
  blockdsl profile "(a & f)*4" --forward-only --json
"""


def add_parser(subparsers: Any) -> None:
    """Add the `profile` command to argparse's subparsers."""
    parser = subparsers.add_parser(
        "profile",
        help="measure the time and the memory of each block",
        description=(
            "Time and memory of each block of a pattern, with random weights, or of a run's model, in forward and\n"
            "backward passes on random inputs, on the device at hand."
        ),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source.add_graph(parser)
    add = parser.add_argument
    add("--batch", type=int, default=8, metavar="ROWS", help="of a pass (default: 8)")
    add("--seq-len", type=int, metavar="N", help="tokens a row (default: 256, or as many as the model reads)")
    add("--context-len", type=int, metavar="N", help="tokens of the context, or the source (default: as --seq-len)")
    add("--device", default="cpu", help="where to run, as in cuda (default: cpu)")
    add("--precision", default="fp32", help="fp32 (default), or bf16: in bfloat16 where that is safe")
    add("--forward-only", action="store_true", help="no backward pass, and no dropout")
    add("--repeats", type=int, default=10, metavar="N", help="passes, of which the median counts (default: 10)")
    add("--warmup", type=int, default=3, metavar="N", help="passes before them (default: 3)")
    add("--seed", type=int, default=0, help="of weights, inputs and dropout (default: 0)")
    measured.add_arguments(parser, SHOWN)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Raises UserError when a flag is invalid, or there is not the memory."""
    measured.check(args)
    for name in ("batch", "seq_len", "context_len", "repeats"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
    if args.warmup < 0:
        raise UserError(f"--warmup must be at least 0, not {args.warmup}")
    graphs = source.graphs(args)
    if "" not in graphs:
        raise UserError(f"{' and '.join(graphs)} are two graphs; profile one")
    from .. import measure, train

    train.limit_threads()
    train.check_device(args.device)
    if args.device == "cpu" and args.show in ("peak", "of_peak"):
        raise UserError(f"--show {args.show}: measured on a GPU alone, as with --device cuda")
    if args.forward_only and args.show == "backward":
        raise UserError("--show backward: --forward-only leaves it out")
    if args.precision not in measure.PRECISIONS:
        raise UserError(f"--precision {args.precision}: there are {' and '.join(measure.PRECISIONS)}")
    if args.device == "cpu":
        train.check_fits(graphs[""])
    model = train.load_trained(Path(args.pattern), args.device) if is_run(args) else graphs[""]
    found = measure.profile(
        model,
        batch=args.batch,
        seq_len=args.seq_len,
        context_len=args.context_len,
        device=None if is_run(args) else args.device,
        precision=args.precision,
        backward=not args.forward_only,
        repeats=args.repeats,
        warmup=args.warmup,
        seed=args.seed,
    )
    return measured.show(args, found)


def is_run(args: argparse.Namespace) -> bool:
    """Whether a run's folder is given, whose model is measured as it was trained."""
    return not args.loops and (Path(args.pattern) / "settings.json").is_file()
