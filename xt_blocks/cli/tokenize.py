"""`blockdsl tokenize`: text of any size as a folder of tokens, for `blockdsl train --data`.

Owns the command's flags and what it prints. The rest is `xt_blocks.train`'s, which is imported when the command runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

EPILOG = """\
FILES are text in UTF-8, one document each; JSON lines (.jsonl, .ndjson, .json), one document a line; both also as .gz;
or Parquet (.parquet, by `pip install 'xt-blocks[parquet]'`), one document a row. Of lines and rows 6% are held out for
validation, by their text, and of text files what `blockdsl train --text` holds out. The folder is whole or not there.

examples:
  blockdsl tokenize books/*.txt --tokenizer tokenizer.json --out tokens
  blockdsl tokenize web-*.jsonl.gz --field content --tokenizer tokenizer.json --out tokens
  blockdsl tokenize huge.txt --out bytes                 bytes as tokens, and text that memory does not hold
"""


def add_parser(subparsers: Any) -> None:
    """Add the `tokenize` command to argparse's subparsers."""
    parser = subparsers.add_parser(
        "tokenize",
        help="make tokens of text, for training beyond memory",
        description="Write the tokens of FILES into a folder that `blockdsl train --data` reads.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("files", nargs="+", metavar="FILES", help="text, JSON lines or Parquet")
    add("--tokenizer", type=Path, metavar="FILE", help="a tokenizer.json (default: tokens are bytes)")
    add("--out", type=Path, required=True, metavar="FOLDER", help="the folder to make")
    add("--field", default="text", metavar="NAME", help="the text of a JSON line, or column of a table (default: text)")
    add("--end", metavar="TOKEN", help="the token after each document (default: the tokenizer's, as <|endoftext|>)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when done, 130 after Ctrl-C. Raises UserError when a file or flag is invalid, or the disk refuses."""
    from ..train import tokenize

    try:
        index = tokenize(args.files, args.out, args.tokenizer, field=args.field, end=args.end)
    except KeyboardInterrupt:
        print(f"stopped; there is no {args.out}", file=sys.stderr)
        return 130
    for name, what in (("train", "to train on"), ("valid", "held out")):
        part = index["parts"][name]
        of = f"{part['documents']:,} document{'s' * (part['documents'] != 1)}"
        print(f"{what:<12} {part['tokens']:,} tokens of {of}, {part['bytes'] / part['tokens']:.2f} bytes each")
    if args.tokenizer is not None and index["end"] is None:
        print("no token ends a document: the tokenizer has none of the usual ones, and --end would name it")
    print(f"saved        {args.out}")
    return 0
