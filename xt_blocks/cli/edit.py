"""`blockdsl edit`: a page to write patterns in, on this machine."""

from __future__ import annotations

import argparse
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockdsl.errors import UserError

from . import source

if TYPE_CHECKING:
    from blockdsl.editor.server import EditedFile, Server

PORT = 8763
"""The usual one: what was not saved is kept by the browser for an address, and is found again at the same."""
NEW = "(a f)*6"


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "edit",
        help="write a pattern in the browser, and see it",
        description=(
            "Open a page to write a pattern in: completion, mistakes as `check` says them, the picture and the costs\n"
            "as you type, a second pattern to hold it against. The page is served to this machine alone, at an\n"
            "address with a secret in it, and fetches nothing from a network. A file is saved where it is, and a\n"
            "name in .pattern that no file has yet is a new one."
        ),
        epilog=(
            "examples:\n  blockdsl edit\n  blockdsl edit model.pattern\n  blockdsl edit zoo:llama3-8b\n"
            "  blockdsl edit runs/1                      the pattern of a run"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pattern", metavar="PATTERN", nargs="?", default=NEW, help=f"{source.GRAPH} (default: {NEW})")
    source.add_settings(parser)
    parser.add_argument(
        "--port", type=int, metavar="N", help=f"of the address (default: {PORT}, or another where it is taken; 0: any)"
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address, and open nothing")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    server = serve(document(args), args.port)
    print(f"{server.document.name} is at {server.address}\nCtrl+C ends it.", flush=True)
    if not args.no_browser:
        webbrowser.open(server.address)
    with server, suppress(KeyboardInterrupt):
        server.serve_forever(poll_interval=0.1)
    return 0


def document(args: argparse.Namespace) -> EditedFile:
    """What the command line names, as a text: of a stored graph, the one that makes it.

    Raises:
        UserError: it cannot be read, or it has no text.
    """
    from blockdsl.editor.server import EditedFile
    from blockdsl.language.format import format_text

    if not source.is_stored(args.pattern):
        new = Path(args.pattern)
        if new.suffix == ".pattern" and not new.exists() and new.parent.is_dir():
            return EditedFile(f"{NEW}\n", new.name, new, source.given_settings(args))
        path = None if args.language else source.as_file(args.pattern)
        text = source.read_text(args)
        path = path if path and path.is_file() else None  # a pipe is read once, and not saved to
        name = path.name if path else args.pattern if args.pattern.startswith(source.ZOO) else "pattern"
        return EditedFile(text, name, path, source.given_settings(args))
    graphs = source.graphs(args)
    if "" not in graphs:
        raise UserError(f"{args.pattern} holds {' and '.join(graphs)}, and a page is of one text")
    return EditedFile(format_text(str(graphs[""].to_pattern())), Path(args.pattern).name)


def serve(document: EditedFile, port: int | None) -> Server:
    """A server on this port; on the usual one, or another where it is taken, if none is asked for.

    Raises:
        UserError: the port is taken.
    """
    from blockdsl.editor.server import Server

    for tried in (PORT, 0) if port is None else (port,):
        try:
            return Server(document, tried)
        except (OSError, OverflowError) as error:
            fault = error
    raise UserError(f"cannot serve on port {port}: {fault}")
