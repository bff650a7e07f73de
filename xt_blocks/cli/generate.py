"""`blockdsl generate`: text from a trained model.

Owns the command's flags and their checks. Leaves sampling to `xt_blocks`, which is imported when the command
runs: `--help` never loads torch.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockdsl.errors import UserError

from . import source

if TYPE_CHECKING:
    from ..interop.text import Writer
    from ..train.launch import Launch

TOKENS = 256
TEMPERATURE = 0.8

EPILOG = f"""\
The model is that of a run of `blockdsl train`, whose tokens are bytes or those of its --data; or of a folder that
save_pretrained or Hugging Face wrote, with the tokenizer in it. The output is the prompt and what the model adds to it,
and of an encoder-decoder its answer; invalid UTF-8 and control characters are shown as the replacement character
U+FFFD.

examples:
  blockdsl generate runs/first --prompt "def "
  blockdsl generate runs/first --prompt "import " --tokens 1000 --top-k 40 --seed 7
  blockdsl generate runs/first --temperature 0          the likeliest byte each time, always the same
  blockdsl generate runs/first --top-p 0.9              from the likeliest bytes that make up 90%
  blockdsl generate runs/first --beams 4                the likeliest text that a search over 4 finds
  blockdsl generate models/gpt2 --prompt "Once"         a folder with config.json, tokenizer.json and weights
  torchrun --nproc-per-node 2 -m blockdsl generate runs/first --mesh tp=2    a run's model over two devices

Without --temperature it is {TEMPERATURE}: less than 1 favours likelier bytes.
"""


def add_parser(subparsers: Any) -> None:
    """Add the `generate` command to argparse's subparsers."""
    parser = subparsers.add_parser(
        "generate",
        help="write text with a trained model",
        description="Write text with the model of a folder.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_folder", metavar="FOLDER", type=Path, help="of a run, as runs/first, or of a model")
    parser.add_argument("--prompt", default="", help="what the text starts with; without it, the start of a line")
    parser.add_argument("--tokens", type=int, default=TOKENS, metavar="N", help=f"how many to add (default: {TOKENS})")
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help=f"0 for the likeliest token, 1 for the model's own distribution (default: {TEMPERATURE})",
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="choose among the K likeliest tokens")
    parser.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="choose among the likeliest tokens that make up P, 0 to 1",
    )
    parser.add_argument("--beams", type=int, metavar="N", help="search for the likeliest text, with N at once")
    parser.add_argument(
        "--seed",
        type=int,
        help="for the same text again (default: a new one, printed to standard error)",
    )
    parser.add_argument(
        "--mesh",
        metavar="AXES",
        help="ranks along each axis, of a run under torchrun, as in tp=2 (default: fsdp, all that it started)",
    )
    parser.add_argument("--device", default="cpu", help="where to run, as in cuda (default: cpu)")
    source.add_loops(parser)
    parser.set_defaults(run=run)


def check(args: argparse.Namespace) -> None:
    """Raises UserError for an invalid value."""
    if args.tokens < 1:
        raise UserError(f"--tokens must be at least 1, not {args.tokens}")
    if args.temperature is not None and not (math.isfinite(args.temperature) and args.temperature >= 0):
        raise UserError(f"--temperature must be 0 or more, not {args.temperature:g}")
    if args.top_k is not None and args.top_k < 1:
        raise UserError(f"--top-k must be at least 1, not {args.top_k}")
    if args.top_p is not None and not 0 < args.top_p <= 1:
        raise UserError(f"--top-p must be more than 0 and at most 1, not {args.top_p:g}")
    if args.beams is not None and args.beams < 1:
        raise UserError(f"--beams must be at least 1, not {args.beams}")
    for name in ("temperature", "top_k", "top_p", "seed"):
        if args.beams is not None and getattr(args, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} is for tokens that are drawn, and --beams takes the likeliest")


def run(args: argparse.Namespace) -> int:
    """Raises UserError when a flag or the folder is invalid."""
    from .. import train
    from ..runtime.loops import with_loops
    from ..train.launch import Silent, process_group

    try:
        with process_group("generate RUN", args.mesh, args.device) as ranks:
            check(args)
            args.temperature = TEMPERATURE if args.temperature is None else args.temperature
            if ranks is not None:
                return _write_over_ranks(args, ranks)
    except Silent:
        return 1
    train.limit_threads()
    train.check_device(args.device)
    is_run = (args.run_folder / "settings.json").is_file() and (args.run_folder / "checkpoints").is_dir()
    if not is_run and (args.run_folder / "config.json").is_file():
        from ..interop.text import load_writer

        return _write(args, load_writer(args.run_folder, args.device))
    if (args.run_folder / "tokenizer.json").is_file():
        return _write(args, train.load_run_writer(args.run_folder, args.device))
    model = with_loops(train.load_trained(args.run_folder, args.device), **source.loops(args))
    seed = train.fresh_seed() if args.seed is None else args.seed
    new = train.sample(model, _prompt(args), args.tokens, **_drawing(args, seed))
    _show(args, seed, new)
    return 0


def _write_over_ranks(args: argparse.Namespace, ranks: Launch) -> int:
    """Each rank has its part of the model, and the first one prints."""
    from .. import train

    run = train.RunFolder.open(args.run_folder)
    job = train.load_job(args.run_folder, ranks.mesh, args.device, **source.loops(args))
    seed = ranks.first(train.fresh_seed) if args.seed is None else args.seed
    new = train.sample_over_ranks(job, run, _prompt(args), args.tokens, **_drawing(args, seed))
    if ranks.main:
        _show(args, seed, new)
    return 0


def _prompt(args: argparse.Namespace) -> bytes:
    """Its bytes as typed, even if they are not valid text in the shell's locale."""
    prompt: bytes = args.prompt.encode("utf-8", errors="surrogateescape")
    return prompt


def _drawing(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    names = ("temperature", "top_k", "top_p", "beams")
    return {"seed": seed, **{name: getattr(args, name) for name in names}}


def _show(args: argparse.Namespace, seed: int, new: bytes) -> None:
    from .. import train

    if args.seed is None and args.temperature > 0 and args.beams is None:
        print(f"seed {seed}", file=sys.stderr)
    train.show_text(_prompt(args) + new)


def _write(args: argparse.Namespace, writer: Writer) -> int:
    """With a model whose folder has a tokenizer: each piece of text as soon as it is there."""
    import torch

    from .. import train
    from ..runtime.loops import with_loops

    writer = writer._replace(model=with_loops(writer.model, **source.loops(args)))
    seed = train.fresh_seed() if args.seed is None else args.seed
    generator = torch.Generator(args.device).manual_seed(train.seed_for("sample", seed))
    options = {"temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p, "generator": generator}
    options = options if args.beams is None else {"beams": args.beams}
    try:
        pieces = writer.write(args.prompt, args.tokens, **options)
        if args.seed is None and args.temperature > 0 and args.beams is None:
            print(f"seed {seed}", file=sys.stderr)
        if not writer.answers:
            train.show_text(args.prompt.encode("utf-8", errors="surrogateescape"), end="")
        for piece in pieces:
            train.show_text(piece.encode(), end="")
    except ValueError as error:
        raise UserError(f"the model cannot be sampled: {error}") from None
    print()
    return 0
