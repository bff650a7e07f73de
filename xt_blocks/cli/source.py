"""Where a command's pattern comes from, and the settings given beside it."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockdsl import zoo
from blockdsl.errors import UserError
from blockdsl.language.megatron import from_megatron
from blockdsl.language.pattern import Pattern, parse, parse_settings
from blockdsl.registry.kinds import kinds
from blockdsl.registry.options import by_name
from blockdsl.registry.streams import PAIR_OPTIONS, refusal, side_of

if TYPE_CHECKING:
    from blockdsl.api import BlockGraph

ZOO = "zoo:"
LANGUAGES = {"megatron": from_megatron}  # of others → how a text in it becomes a pattern
GRAPH = (
    "the pattern's text; or the path of a file, of a graph in JSON, of a Hugging Face config.json, or of a folder with "
    "one of these, as a run's; or a published model, as zoo:gpt2; or - for standard input"
)


def add_pattern(parser: argparse.ArgumentParser) -> None:
    """The argument PATTERN."""
    parser.add_argument(
        "pattern",
        metavar="PATTERN",
        nargs="?",
        default="-",
        help=(
            "the pattern's text; or the path of a file (with a dot or a slash in its name); or a published model, as "
            "zoo:gpt2; or - for standard input"
        ),
    )
    _add_language(parser)


def add_graph(parser: argparse.ArgumentParser) -> None:
    """The arguments of a command about a graph: PATTERN, which may be a stored graph, and the settings."""
    parser.add_argument("pattern", metavar="PATTERN", nargs="?", default="-", help=GRAPH)
    add_settings(parser)
    add_loops(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The arguments that say how a pattern's text is read, and that set what it does not."""
    _add_language(parser)
    parser.add_argument("--dim", type=int, help="features of the stream (default: the pattern's, else 512)")
    parser.add_argument("--heads", type=int, help="attention heads of 64 features (default: the pattern's, else 8)")
    parser.add_argument("--causal", action="store_true", default=None, help="no token sees a later one")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTIONS",
        help="any other settings, as after `set` in a pattern: --set rotary_pos_emb,ff_mult=2",
    )


def add_loops(parser: argparse.ArgumentParser) -> None:
    """The argument that repeats tied units more or fewer times."""
    parser.add_argument(
        "--loops",
        action="append",
        default=[],
        metavar="TIE=N",
        help="repeat the unit of a tie so often: --loops core=16 of (a f)@core*8",
    )


def loops(args: argparse.Namespace) -> dict[str, int]:
    """What --loops gives.

    Raises:
        UserError: it cannot be read.
    """
    counts: dict[str, int] = {}
    for text in args.loops:
        label, _, number = text.partition("=")
        if not (label and number.isdecimal()):
            raise UserError(f"--loops {text}: give a tie and how often its unit is repeated, as in --loops core=16")
        counts[label] = int(number)
    return counts


def _add_language(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="language",
        choices=LANGUAGES,
        help="whose pattern the text is, as --from megatron 'M-M*-|M-M*E' (default: blockdsl's)",
    )


def read_text(args: argparse.Namespace) -> str:
    """The pattern's text; `args.source_name` is set to the prefix of an error's line and column.

    Raises:
        UserError: the file cannot be read, or nothing was given.
        PatternError: it is of another language (--from) and cannot be read.
    """
    language = getattr(args, "language", None)
    if language is not None and args.pattern.startswith(ZOO):
        raise UserError(f"{args.pattern} is no pattern of {language}; leave --from out")
    text = _text(args)
    if language is None:
        return text
    pattern = LANGUAGES[language](text)
    args.source_name = ""  # what is wrong further on is shown in the text made of it, not in the file
    return str(pattern)


def _text(args: argparse.Namespace) -> str:
    args.source_name = ""
    if args.pattern.startswith(ZOO):
        return zoo.entry(args.pattern[len(ZOO) :]).text
    path = None if args.pattern == "-" else as_file(args.pattern)
    try:
        if path is not None:
            args.source_name = f"{path}:"
            return path.read_text(encoding="utf-8-sig")  # an editor's byte order mark is not part of the pattern
        if args.pattern == "-":
            if sys.stdin is None or sys.stdin.isatty():
                raise UserError('give a pattern, as in "f a f | a*6 f*6", a file, or text on standard input')
            text = sys.stdin.read()
            text.encode()  # fails on invalid bytes that the locale's decoder let through
            return text.removeprefix("\ufeff")
    except UnicodeError:
        raise UserError(f"{path or 'standard input'} is not text in UTF-8") from None
    except OSError as error:
        raise UserError(f"cannot read {path or 'standard input'}: {error.strerror}") from None
    if _FILE_NAME.fullmatch(args.pattern) and not Path(args.pattern).is_dir():
        raise UserError(f"there is no file {args.pattern}")
    if _is_path(args.pattern) and not Path(args.pattern).is_dir():
        raise UserError(f"there is no file or folder {args.pattern}")
    if _is_no_block(args.pattern) and args.pattern in zoo.FAMILIES:
        raise UserError(f"{args.pattern} is no pattern; the published model is {ZOO}{args.pattern}")
    if args.pattern != "-" and _stored(args.pattern):
        raise UserError(f"{args.pattern} is a graph or a folder of one, not a pattern; a run's is in its pattern.txt")
    return args.pattern


# A file's name rather than a pattern: one word with an ending such as .pattern (while f/2.e5 is half a pattern).
_FILE_NAME = re.compile(r"[^\s()*&|@#=;,:]*\.(?!e\d)[A-Za-z]\w*")
_ONE_WORD = re.compile(r"[^\s()*&|@#=;,:]*")

_NAMES_A_FOLDER = re.compile(r"[./\\]")  # as a name with one of these is a file's, if there is one


def as_file(argument: str) -> Path | None:
    """The file that an argument names, or None when it is a pattern's text.

    `a` is a pattern even beside a file called a; a name with a dot or a slash is a file's if there is one.
    """
    path = Path(argument)
    named = "." in argument or "/" in argument or "\\" in argument
    try:
        return path if named and path.exists() and not path.is_dir() else None
    except (OSError, ValueError):  # far too long for a path, or a NUL in it
        return None


def read_pattern(args: argparse.Namespace) -> Pattern:
    return parse(read_text(args))


def settings(args: argparse.Namespace, pattern: Pattern) -> dict[str, Any]:
    """Settings from the command line, with a width for a pattern that has none."""
    given = given_settings(args)
    if pattern.encoder is None:
        of_one = [name for name in given if side_of(name)[0] or name in by_name(PAIR_OPTIONS)]
        told = dict.fromkeys(of_one, "it is of two streams, as in (a f)*6 => (a c f)*6")
    else:
        told = {name: reason for name, value in given.items() if (reason := refusal(name, value))}
    for name, reason in told.items():
        flag = f"--{name}" if name == "causal" and args.causal else f"--set {name}"
        raise UserError(f"the pattern takes no {flag}: {reason}")
    if not {"dim", "enc_dim", "dec_dim"} & {*given, *pattern.settings}:
        given["dim"] = 512
    return given


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Settings from the command line alone.

    Raises:
        UserError: --set cannot be read.
    """
    given: dict[str, Any] = {}
    for text in args.set:
        try:
            given |= parse_settings(text)
        except ValueError as error:
            raise UserError(f"--set: {error}") from None
    for name in ("dim", "heads", "causal"):
        if getattr(args, name, None) is not None:
            given[name] = getattr(args, name)
    return given


def graphs(args: argparse.Namespace) -> dict[str, BlockGraph]:
    """The graphs that the command line names: one, called "", or those of a pair of encoders by name.

    Tied units are repeated as --loops says.

    Raises:
        UserError: a file cannot be read, or settings are given beside a graph that has them all.
    """
    counts = loops(args) if "loops" in args else {}
    return {name: graph.with_loops(**counts) if counts else graph for name, graph in _graphs(args).items()}


def _graphs(args: argparse.Namespace) -> dict[str, BlockGraph]:
    from blockdsl import compile

    stored = _stored(args.pattern)
    if stored is None:
        pattern = read_pattern(args)
        return {"": compile(pattern, **settings(args, pattern))}
    _refuse_settings(args)
    return _read_graphs(stored)


def _refuse_settings(args: argparse.Namespace) -> None:
    flags = {"dim": "dim", "heads": "heads", "causal": "causal", "set": "set", "language": "from"}
    if given := [f"--{flag}" for name, flag in flags.items() if getattr(args, name) not in (None, [])]:
        raise UserError(f"{args.pattern} is a graph with all its settings; leave {' and '.join(given)} out")


def is_stored(argument: str) -> bool:
    """Whether an argument names a stored graph. Raises UserError as `graphs` does."""
    return _stored(argument) is not None


def _stored(argument: str) -> Path | None:
    """The JSON file that an argument names, itself or by the folder it is in; None when it names none.

    Raises:
        UserError: it can only be a folder, and there is no graph in it.
    """
    if not argument:
        return None
    path = Path(argument)
    try:
        inside = [path / name for name in ("graph.json", "config.json") if (path / name).is_file()]
        found = inside[0] if inside else path if path.suffix == ".json" and path.is_file() else None
        bare = found is None and path.is_dir()
    except (OSError, ValueError):  # far too long for a path, or a NUL in it
        return None
    if bare and (_NAMES_A_FOLDER.search(argument) or _is_no_block(argument)):
        raise UserError(f"{argument} is a folder without a graph.json or a config.json")
    return found


def _is_no_block(word: str) -> bool:
    """Whether a word could be a block in a pattern, but is none."""
    return word.isidentifier() and len(word) > 1 and word not in kinds()


def _is_path(word: str) -> bool:
    """Whether a word with a slash names a place, as runs/1 does; f/2 is a scale."""
    first, slash, _ = word.partition("/")
    named = first in ("", ".", "..", "~") or _is_no_block(first)
    return bool(slash) and named and _ONE_WORD.fullmatch(word) is not None


def _read_graphs(path: Path) -> dict[str, BlockGraph]:
    """Those of a graph in JSON, of the folder of an encoder-decoder of ours, or of a Hugging Face configuration."""
    values = _object(path)
    if "model_type" in values:
        from blockdsl import hugging_face

        try:
            return hugging_face.read(values).graphs()
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    if "encoder" in values and "xt_blocks" in values:
        encoder, decoder = (_read_graph(path.with_name(f"{side}.json")) for side in ("encoder", "decoder"))
        return {"": decoder.with_encoder(encoder, bool(values.get("arguments", {}).get("tie_token_emb", False)))}
    return {"": _read_graph(path)}


def _object(path: Path) -> dict[str, Any]:
    """The keys of a file of JSON; none where it is something else, which the reader of graphs says."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _read_graph(path: Path) -> BlockGraph:
    from blockdsl.api import BlockGraph

    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeError:
        raise UserError(f"{path} is not text in UTF-8") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    try:
        return BlockGraph.from_json(text)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
