"""Documents of files of any size, a passage at a time, and which of them are held out from training.

Text in UTF-8 is one document a file, JSON lines (.jsonl, .ndjson, .json) one a line, Parquet one a row; each may be
compressed with gzip, as book.txt.gz. Owns reading, and the split, which depends on names, sizes and contents alone:

- text files as for `--text`: some whole files by their names where that gives a fair share, else the tail of each;
- a line or a row by a hash of its text, so that one that occurs twice is on one side.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from blockdsl.errors import UserError, nearest

from .data import FAIR_SHARE, VALIDATION_SHARE, files_by_name, in_validation

LINES = (".jsonl", ".ndjson", ".json")
TABLES = (".parquet",)
PASSAGE = 2**17
"""Characters of a text file that are read at once, to the end of a line."""


class Passage(NamedTuple):
    """A part of a document.

    Attributes:
        held_out: from training.
        last: of its document.
    """

    text: str
    held_out: bool
    last: bool


def read_passages(paths: Sequence[str | Path], field: str) -> Iterator[Passage]:
    """All documents of `paths`, in the order of the files' names. Empty ones are left out.

    Args:
        field: of a line, or column of a table: the text.

    Raises:
        UserError: a file cannot be read, or is not what its name says.
    """
    files = files_by_name(paths)
    for _, path in files:
        if not path.is_file():
            raise UserError(f"{path}: is a folder; name the files in it" if path.is_dir() else f"{path}: no such file")
    cuts = _cuts([(name, path) for name, path in files if _suffix(path) not in LINES + TABLES])
    for _, path in files:
        try:
            if path in cuts:
                yield from _text(path, cuts[path])
            else:
                rows = _lines(path, field) if _suffix(path) in LINES else _rows(path, field)
                yield from (Passage(text, in_validation(_hash(text)), True) for text in rows if text)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: is not text ({error.reason} near byte {error.start:,})") from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{path}: is no whole gzip file ({error})") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _size(path: Path) -> int:
    """Of its text, in bytes."""
    if path.suffix != ".gz":
        return path.stat().st_size
    try:
        with gzip.open(path) as file:
            return sum(len(block) for block in iter(lambda: file.read(PASSAGE), b""))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: is no whole gzip file ({error})") from None


def _cuts(files: Sequence[tuple[str, Path]]) -> dict[Path, int]:
    """The byte of each text file from which on it is held out."""
    sizes = {path: _size(path) for _, path in files}
    held = {path for name, path in files if in_validation(name)}
    share = sum(sizes[path] for path in held) / max(1, sum(sizes.values()))
    if FAIR_SHARE[0] <= share <= FAIR_SHARE[1]:
        return {path: 0 if path in held else size for path, size in sizes.items()}
    return {path: size - ceil(VALIDATION_SHARE * size) for path, size in sizes.items()}


def _text(path: Path, cut: int) -> Iterator[Passage]:
    """A text file, whose bytes from `cut` on are held out."""
    at, held, size = 0, cut == 0, 0
    gathered: list[str] = []
    with _open(path) as file:
        for line in iter(lambda: file.readline(PASSAGE), ""):
            if "\0" in line:
                raise UserError(f"{path}: is not text (it has a NUL byte)")
            data = line.encode()
            if not held and at + len(data) > cut:
                before = data[: cut - at].decode(errors="ignore")
                yield Passage("".join([*gathered, before]), False, True)
                gathered, size, line, held = [], 0, line[len(before) :], True
            gathered.append(line)
            size += len(line)
            at += len(data)
            if size >= PASSAGE:
                yield Passage("".join(gathered), held, False)
                gathered, size = [], 0
    if at:
        yield Passage("".join(gathered), held, True)


def _lines(path: Path, field: str) -> Iterator[str]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number:,}: is no JSON object")
            if field not in row:
                raise UserError(f"{path}, line {number:,}: has no field '{field}'{_others(field, row)}")
            if not isinstance(row[field], str):
                raise UserError(f"{path}, line {number:,}: '{field}' is no text, but {type(row[field]).__name__}")
            yield row[field]


def _rows(path: Path, field: str) -> Iterator[str]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UserError(f"to read {path}, pyarrow is needed: pip install 'xt-blocks[parquet]'") from None
    try:
        with parquet.ParquetFile(path) as table:
            columns = table.schema_arrow.names
            if field not in columns:
                raise UserError(f"{path}: has no column '{field}'{_others(field, columns)}")
            for rows in table.iter_batches(columns=[field]):
                for text in rows.column(0).to_pylist():
                    if text is not None and not isinstance(text, str):
                        raise UserError(f"{path}: '{field}' is no text, but {type(text).__name__}")
                    yield text or ""
    except ArrowException as error:
        raise UserError(f"{path}: is no Parquet file ({str(error).splitlines()[0]})") from None


def _others(field: str, names: Any) -> str:
    found = nearest(field, names) or ", ".join(sorted(names)[:5])
    return f"; --field says which, as {found}" if found else ""
