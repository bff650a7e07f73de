"""The page without a server behind it: Pyodide in headless Chromium, from a folder that a plain static server hands out."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from ..draw.test_browser import driver  # noqa: F401 - a fixture
from .browser import Page, closed, opened
from .checks import CHECKS, LONG, TEXT
from .site import build


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where the built folder is served; without npm or a network there is none."""
    missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    if shutil.which("npm") is None:
        missing("no npm here, which Pyodide comes from")
    try:
        folder = build(tmp_path / "site")
    except subprocess.SubprocessError as error:
        missing(f"npm and PyPI cannot be reached from here: {error}")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


LIGHT = [check for check in CHECKS if check not in LONG]
"""What a run tries; long texts say nothing here of what they do not with a server, but that Pyodide is slow."""


@pytest.mark.parametrize("checks", [LIGHT, pytest.param(LONG, marks=pytest.mark.thorough)], ids=["light", "long"])
def test_the_page_without_a_server(
    checks: list[Callable[[Page], None]],
    driver: Any,  # noqa: F811
    address: str,
    tmp_path: Path,
) -> None:
    """All that it does, in one page: Python is loaded once."""
    driver.set_page_load_timeout(120)
    page = opened(driver, f"{address}#text={quote(TEXT)}", tmp_path, "pattern")
    assert page.text == TEXT
    assert all(name.startswith(address) for name in page.resources())
    for check in checks:
        page.write(TEXT)
        check(page)
    closed(page)
