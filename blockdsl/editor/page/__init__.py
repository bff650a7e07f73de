"""The files of the page to write patterns in, as a browser asks for them."""

from __future__ import annotations

from importlib.resources import files

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


def file_names() -> list[str]:
    """Of all files of the page."""
    return sorted(each.name for each in files(__name__).iterdir() if each.name[each.name.rfind(".") :] in TYPES)


def file_content(name: str) -> tuple[bytes, str]:
    """A file and its type.

    Raises:
        FileNotFoundError: the page has no such file.
    """
    if name not in file_names():
        raise FileNotFoundError(name)
    return files(__name__).joinpath(name).read_bytes(), TYPES[name[name.rfind(".") :]]
