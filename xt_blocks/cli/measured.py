"""What the commands that measure blocks share: a table, --json, and a picture with the numbers on the blocks."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from blockdsl.draw.choices import DETAILS
from blockdsl.errors import UserError

from . import output, picture

if TYPE_CHECKING:
    from blockdsl.measurements import Measurements


def add_arguments(parser: argparse.ArgumentParser, shown: tuple[str, ...]) -> None:
    """The arguments. `shown`: the names of the measurements, that which is drawn unless another is asked for first."""
    if len(shown) > 1:
        parser.add_argument(
            "--show",
            choices=shown,
            metavar="NAME",
            help=f"what the bars and the picture show: {', '.join(shown)} (default: {shown[0]})",
        )
    parser.add_argument("--json", action="store_true", help="print JSON")
    picture.add(parser, picture.IMAGES, "the pattern with the numbers on its blocks")
    parser.add_argument("--detail", choices=DETAILS, help="of the picture; op: open each block to its operations")
    parser.add_argument(
        "--unfold",
        action=argparse.BooleanOptionalAction,
        help="in the picture: every block (the default), or each repeat once with the range of its numbers",
    )
    parser.add_argument(
        "--columns", type=int, metavar="N", help="of the picture, not of HTML (default: as many as fit)"
    )


def check(args: argparse.Namespace) -> None:
    """What can be said before anything is measured.

    Raises:
        UserError: the picture's arguments are at fault.
    """
    wanted = picture.is_wanted(args)
    if wanted and picture.ending(args, picture.IMAGES) == ".html" and args.columns is not None:
        raise UserError("--columns: not for .html files")
    for name in ("detail", "unfold", "columns"):
        if not wanted and getattr(args, name) is not None:
            raise UserError(f"--{name} is of the picture: say where to with -o")


def show(args: argparse.Namespace, found: Measurements) -> int:
    """Print the table or JSON, and write the picture where one is asked for."""
    which = getattr(args, "show", None)
    if args.out is not None:
        names = ("detail", "unfold", "columns")
        options: dict[str, Any] = {name: v for name in names if (v := getattr(args, name)) is not None}
        picture.draw(args, found, show=which, **options)
        if args.out == output.STDOUT:
            return 0
    print(json.dumps(found.as_json(), indent=1) if args.json else found.to_text(which))
    return 0
