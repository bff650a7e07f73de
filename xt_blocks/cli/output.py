"""Where a command's output goes: signs that a terminal lacks, a reader that leaves, files, and `-o -`.

Owns what stands for a sign that the output's encoding does not have, and writing a picture. What is written is the
commands' own.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import IO, Any, cast

from blockdsl.errors import UserError
from blockdsl.files import write_whole
from blockdsl.signs import PLAIN

STDOUT = Path("-")


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


codecs.register_error("blockdsl.plain", _plain)


@contextmanager
def plain_signs() -> Iterator[None]:
    """Within, standard output writes in ASCII what its encoding does not have, instead of failing."""
    stream: Any = sys.stdout
    if not hasattr(stream, "reconfigure"):  # a program's own stream, in which it runs a command
        yield
        return
    before = stream.errors
    stream.reconfigure(errors="blockdsl.plain")
    try:
        yield
    finally:
        stream.reconfigure(errors=before)


def encodable(text: str) -> bool:
    """Whether standard output has all signs of a text."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


class _Lasting:
    """A stream that drops what is written once that fails, as where its reader has gone."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._failed = stream, False

    def write(self, text: str) -> int:
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, action: Callable[[], object]) -> None:
        if not self._failed:
            try:
                action()
            except OSError:
                self._failed = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting() -> Iterator[None]:
    """Within, a reader of standard output or error that goes away does not end the command."""
    out, err = (cast(IO[str], _Lasting(stream)) for stream in (sys.stdout, sys.stderr))
    with redirect_stdout(out), redirect_stderr(err):
        yield


def image_form(path: Path) -> str:
    """The form of an image by its file's ending, ".png" for `-`. Raises UserError where it is none."""
    from ..train import FORMATS

    form = ".png" if path == STDOUT else path.suffix.lower()
    if form not in FORMATS:
        raise UserError(f"{path}: an image's name ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    return form


def write(path: Path, content: bytes, say_on: IO[str] | None = None) -> None:
    """Write a file and say where it is, on standard output or `say_on`; for `-`, only the content, to standard output.

    Raises:
        UserError: the disk refuses.
    """
    if path == STDOUT:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        return
    try:
        write_whole(path, content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    print(f"wrote {path}", file=say_on)
