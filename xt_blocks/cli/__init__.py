# PYTHON_ARGCOMPLETE_OK
"""The command line. Each command is a module with `add_parser` and `run`.

argparse, because it imports in a tenth of the time of the alternatives. torch is imported only by
the commands that need it, networkx only by those that make a graph.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

from blockdsl import __version__
from blockdsl.errors import PatternError, UserError

from . import (
    attention,
    check,
    coords,
    diff,
    draw,
    edit,
    fmt,
    generate,
    importance,
    lsp,
    options,
    output,
    plan,
    profile,
    record,
    show,
    stats,
    tokenize,
    train,
)
from .parser import Parser

COMMANDS = (
    *(check, fmt, show, draw, edit, lsp, stats, plan, diff, options, tokenize, train, generate),
    *(attention, record, importance, profile, coords),
)

DESCRIPTION = """\
Transformer variants as layer patterns. A pattern says which blocks, in which order:

  f a f | a*6 f*6 | sandwich(6)

three stages: a feedforward-attention-feedforward start, six attentions and then six feedforwards, and the sandwich
ordering with coefficient 6.

  a  self-attention       x*6   six times           x>>1   token shift by 1
  c  cross-attention      a & f parallel branches   x/2    half step: the branch is divided by 2
  f  feedforward          p | q two stages          x@name one set of weights for all with this name
  m  Mamba-2              p => q encoder, decoder   ^u <u  a label, and a read of the stream at it
  e  experts              gdn kda gla mamba rglru hgrn conv: further kinds with a state

Options come in parentheses right after the name, f(glu); settings of the stack come first, set dim=512;
"""

EPILOG = """\
examples:
  blockdsl check "f a f | attn*6"              what is wrong, and where
  blockdsl show "(a & f)*12 | sandwich(6)"     the drawing
  blockdsl draw "(a f)*6" -o decoder.svg       a picture
  blockdsl edit model.pattern                  a page to write it in, with the picture beside it
  blockdsl stats model.pattern --dim 1024      parameters, FLOPs, cache
  blockdsl diff "(a f)*6" "(a & f)*6"          what differs
  blockdsl plan zoo:llama3-70b --gpus 64       on which meshes of devices it can be trained
  blockdsl show zoo:llama3-70b                 a published model
  blockdsl options sparse_topk                 what an option does, its values and its paper
  blockdsl train                               two minutes on text that is on every machine
  blockdsl generate runs/1 --prompt "def "     sample from what it learned
  blockdsl profile "(a f)*6"                   time and memory of each block
  blockdsl importance runs/1                   the loss without each block
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line's parser."""
    top = Parser(
        prog="blockdsl",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"blockdsl {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 success, 1 failure, 2 wrong usage.

    A command whose status 1 means something else sets another for failure, `fault`; one whose output has to be exact,
    or an error, sets `exact`.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started the process
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process lives
    top, words = parser(), sys.argv[1:] if argv is None else [*argv]
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions
        with suppress(ImportError):
            import argcomplete

            argcomplete.autocomplete(top)
    if not words:
        top.print_help(sys.stderr)
        return 2
    args, status = argparse.Namespace(command="", source_name="", fault=1, exact=False), 0
    with ExitStack() as around:
        try:
            try:
                top.parse_args(words, args)
                if not args.exact:
                    around.enter_context(output.plain_signs())
                status = args.run(args)
            finally:
                sys.stdout.flush()  # a write error is raised here, not when the interpreter exits
            return status
        except UserError as error:
            if getattr(args, "json", False):
                print(json.dumps(_as_json(error), indent=1))
            elif isinstance(error, PatternError):
                print(f"{args.source_name}{error}", file=sys.stderr)
            else:
                print(f"blockdsl {args.command}: {error}", file=sys.stderr)
        except UnicodeEncodeError as error:
            sign = ascii(error.object[error.start])
            print(f"blockdsl {args.command}: the output's encoding, {error.encoding}, has no {sign}", file=sys.stderr)
        except BrokenPipeError:  # the reader, such as `head`, has read enough
            _drop_output()
            return status
        except OSError as error:
            print(f"blockdsl {args.command}: {error}", file=sys.stderr)
            _drop_output()
        return args.fault


def _drop_output() -> None:
    """What standard output still holds goes nowhere, instead of failing when the interpreter exits."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _as_json(error: UserError) -> dict[str, Any]:
    """What is wrong, for scripts that asked for JSON; for a pattern also where."""
    if not isinstance(error, PatternError):
        return {"ok": False, "problem": str(error)}
    where = {"line": error.line, "column": error.column, "length": error.span.end - error.span.start}
    return {"ok": False, "problem": error.problem, **where, "hint": error.hint}
