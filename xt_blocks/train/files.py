"""Small file operations that survive a kill: whole or not at all.

Owns atomic replacement and fsync. Leaves what is written to its callers.
"""

from __future__ import annotations

import os
from pathlib import Path

from blockdsl.files import naming


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


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` (text as UTF-8): a reader, or a kill, sees the old or the new file."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    partial = path.with_name(path.name + ".tmp")
    with naming(path):
        partial.write_bytes(data)
    sync(partial)
    os.replace(partial, path)
    sync(path.parent)
