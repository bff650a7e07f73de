"""`blockdsl lsp`: the language server, for editors."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from blockdsl.errors import UserError


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "lsp",
        help="answer an editor's questions about .pattern files",
        description=(
            "The language server, over standard input and output: diagnostics with fixes, completion, hover,\n"
            "formatting, renaming, outline and highlighting of .pattern files. Editors start it; see docs/editors.md."
        ),
        epilog=(
            "examples:\n"
            "  blockdsl lsp            as an editor starts it: nothing is printed but answers\n"
            "  blockdsl lsp --stdio    the same, for editors that say so\n"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--stdio", action="store_true", help="over standard input and output, which is what it does")
    parser.set_defaults(run=run, exact=True)


def run(args: argparse.Namespace) -> int:
    try:
        from blockdsl.editor.language_server import language_server
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("pygls", "lsprotocol"):
            raise
        raise UserError("the language server needs pygls: python -m pip install 'xt-blocks[lsp]'") from None
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as output:  # pygls closes it
        language_server().start_io(sys.stdin.buffer, output)
    return 0
