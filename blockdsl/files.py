"""Files that people name: read whole, with errors in their words, and named where a full disk refuses one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UserError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What is written within is this file: an OSError says so, as those of a full disk do not by themselves."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


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
