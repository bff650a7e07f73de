"""Files that people name: read whole, with errors in their words, and written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any

from .errors import UserError


def read_object(path: Path) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        UserError: the file cannot be read, or it is no object in JSON.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:  # not UTF-8, or not JSON
        raise UserError(f"{path} is damaged: it is not JSON") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is no object in JSON")
    return found


@contextmanager
def naming(path: str | PathLike[str]) -> Iterator[None]:
    """What is written within is this file: an OSError that names none says so, as those of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


def write_whole(path: str | PathLike[str], content: str | bytes) -> None:
    """Make `content` (text as UTF-8) what a file holds: whoever reads it, after a kill too, has the old or the new.

    It is written beside the file, which a rename then replaces; its mode and owner stay, and of a symbolic link the
    file that it leads to is written. Where nothing can be put beside it, it is written in place. What a kill in the
    middle leaves beside it is no part of anything; see `leftovers`.

    Raises:
        OSError: the disk is full, say, or the file is not to be written; it is as it was.
        UnicodeError: the text has signs that no file can hold.
    """
    data = content if isinstance(content, bytes) else content.encode()
    try:
        _write(Path(os.path.realpath(path)), data)
    except OSError as error:  # of the file beside it too, which nobody has named
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def leftovers(folder: Path) -> Iterator[Path]:
    """Files in a folder that `write_whole` had begun when its process was killed, or that one is writing now."""
    return (path for path in folder.glob(".*.tmp") if re.fullmatch(r"\.[0-9a-f]{16}\.tmp", path.name))


def _write(target: Path, data: bytes) -> None:
    before = target.stat() if target.exists() else None
    if before is not None and not stat.S_ISREG(before.st_mode):  # a pipe, a terminal, a folder
        target.write_bytes(data)
        return
    if before is not None and (not before.st_mode & _WRITABLE or not os.access(target, os.W_OK)):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    beside = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if before is not None:
            _as_before(beside, before)
        os.replace(beside, target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        if before is None or error.errno not in _NOTHING_BESIDE:
            raise
        target.write_bytes(data)
        return
    sync(target.parent)


_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_NOTHING_BESIDE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV)
"""A folder that takes no new files, or a file that is mounted by itself, as into a container."""


def _as_before(path: Path, before: os.stat_result) -> None:
    if hasattr(os, "chown") and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(OSError):  # only an administrator gives files away
            os.chown(path, before.st_uid, before.st_gid)
    path.chmod(stat.S_IMODE(before.st_mode))


def sync(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to the disk.

    A folder cannot be opened for this on Windows, where the rename is journaled by the file system.
    """
    if path.is_dir() and os.name != "posix":
        return
    # Windows flushes only through a handle that may write; a folder opens only for reading.
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        with naming(path):
            os.fsync(handle)
    finally:
        os.close(handle)
