"""The command line, run in this process or as a process of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest

from xt_blocks.cli import main

ROOT = str(Path(__file__).parents[2])


class Ran(NamedTuple):
    status: int
    out: str
    err: str


class Terminal(io.StringIO):
    """Standard input that is a terminal with nobody at it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def blockdsl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """blockdsl("check", "a f", stdin=...) -> status, standard output, standard error."""

    def run(*arguments: object, stdin: io.StringIO | str = "") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin) if isinstance(stdin, str) else stdin)
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stopped:  # argparse's own way out
            status = int(stopped.code or 0)
        return Ran(status, *capsys.readouterr())

    return run


def process(
    *arguments: object, stdin: bytes = b"", stdout: int | IO[Any] = subprocess.PIPE, code: str = "", **env: str
) -> subprocess.CompletedProcess[bytes]:
    """The command line (or other Python code) in a fresh interpreter that knows nothing of the terminal it is in."""
    code = code or "import sys; from xt_blocks.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LC_", "LANG"))}
    environment = inherited | {"PYTHONUTF8": "1", "PYTHONPATH": ROOT, "COLUMNS": "100"} | env
    return subprocess.run(command, input=stdin, stdout=stdout, stderr=subprocess.PIPE, env=environment, check=False)
