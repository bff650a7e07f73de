"""`blockdsl fmt`: canonical text, comments kept."""

from __future__ import annotations

import argparse
import difflib
import sys
from typing import Any

from blockdsl.errors import UserError
from blockdsl.files import write_whole
from blockdsl.language.format import format_text

from . import source


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "fmt",
        help="write a pattern in its canonical form",
        description="Print a pattern in canonical form: single spaces, options in order, one statement a line.",
        epilog=(
            'examples:\n  blockdsl fmt "((a  f))*6"\n  blockdsl fmt --write model.pattern\n'
            '  blockdsl fmt --from megatron "M-M*-"\n'
            "  blockdsl fmt --check model.pattern    exits with 1 and shows the difference"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source.add_pattern(parser)
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--check", action="store_true", help="only say whether it is in that form; 1 when it is not")
    way.add_argument("--write", action="store_true", help="write it back to the file")
    parser.set_defaults(run=run, exact=True)


def run(args: argparse.Namespace) -> int:
    if args.language is not None and (args.check or args.write):
        raise UserError("--from prints a pattern of another language as one of this; leave --check and --write out")
    text = source.read_text(args)
    formatted = format_text(text)
    path = source.as_file(args.pattern)
    if args.check:
        if text.removesuffix("\n") == formatted.removesuffix("\n"):
            return 0
        before, after = text.splitlines(), formatted.splitlines()
        print("\n".join(difflib.unified_diff(before, after, str(path or "pattern"), "formatted", lineterm="")))
        return 1
    if args.write:
        if path is None:
            print("blockdsl fmt: --write needs a file", file=sys.stderr)
            return 2
        if text != formatted:
            try:
                write_whole(path, formatted)
            except OSError as error:
                raise UserError(f"cannot write {path}: {error.strerror}") from None
        return 0
    print(formatted, end="")
    return 0
