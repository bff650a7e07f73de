"""Files that people name: read whole, with errors in their words."""

from __future__ import annotations

import json
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
