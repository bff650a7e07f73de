"""The file that a command draws into: its format, by its name or --format, and its theme."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blockdsl.draw.choices import THEMES
from blockdsl.errors import UserError

from . import output

THEMED = (".svg", ".png", ".pdf")
IMAGES = (".svg", ".png", ".pdf", ".html")


def add(parser: argparse.ArgumentParser, formats: Sequence[str], what: str, required: bool = False) -> None:
    """The arguments --out, --format and --theme. `formats`: endings of names, the first the default for `-`."""
    names = ", ".join(f"x{ending}" for ending in formats)
    parser.add_argument(
        "-o",
        "--out",
        required=required,
        type=Path,
        metavar="FILE",
        help=f"{what}: {names}; or - for standard output, as {formats[0][1:].upper()} or in --format",
    )
    parser.add_argument(
        "--format", choices=[ending[1:] for ending in formats], help="of the picture (default: as FILE ends)"
    )
    parser.add_argument("--theme", choices=THEMES, help="of SVG, PNG and PDF (default: SVG auto, the others light)")


def is_wanted(args: argparse.Namespace) -> bool:
    """Whether a picture is asked for.

    Raises:
        UserError: its format or theme is given and no file, or it and JSON are to share standard output.
    """
    if args.out is None:
        for name in ("format", "theme"):
            if getattr(args, name) is not None:
                raise UserError(f"--{name} is of the picture: say where to with -o")
    elif args.out == output.STDOUT and args.json:
        raise UserError("--json and -o - both write to standard output; give one")
    return args.out is not None


def ending(args: argparse.Namespace, formats: Sequence[str]) -> str:
    """The ending that says the picture's format.

    Raises:
        UserError: it is none of `formats`, or it has no themes and one is asked for.
    """
    found = f".{args.format}" if args.format else formats[0] if args.out == output.STDOUT else args.out.suffix.lower()
    if found not in formats:
        raise UserError(f"{args.out}: a picture's name ends in {', '.join(formats)}; or say --format {formats[0][1:]}")
    if args.theme is not None and found not in THEMED:
        raise UserError(f"--theme: not for {found} files")
    return found


def draw(args: argparse.Namespace, drawing: Any, formats: Sequence[str] = IMAGES, **options: Any) -> None:
    """Write a drawing, a BlockGraph or a GraphDiff, to --out; says so on standard error.

    Raises:
        UserError: as `ending`, or it cannot be drawn or written.
    """
    found = ending(args, formats)
    if args.theme is not None:
        options["theme"] = args.theme
    write(args.out, getattr(drawing, f"to_{found[1:]}")(**options), sys.stderr)


def write(path: Path, drawn: str | bytes, say_on: Any = None) -> None:
    """Write what was drawn, as `output.write` does."""
    output.write(path, drawn if isinstance(drawn, bytes) else (drawn.removesuffix("\n") + "\n").encode(), say_on)
