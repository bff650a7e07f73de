"""Every code block of the README runs, and what it shows is what comes out.

The console blocks' outputs are in the README; after a change on purpose, `python tests/test_readme.py` writes them
anew. The two install commands are run by .ci/run, word for word.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [body for name, body in BLOCK.findall(README.read_text(encoding="utf-8")) if name == language]


def output_of(command: str) -> str:
    """What a console command prints, errors included."""
    words = shlex.split(command)
    if words[0] == "python":
        argv = [sys.executable, *words[1:]]
    else:
        argv = [sys.executable, "-c", "import sys; from blockdsl.cli import main; sys.exit(main())", *words[1:]]
        assert words[0] == "blockdsl"
    run = subprocess.run(
        argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, env=utf8(), timeout=120
    )
    return run.stdout.decode()


def utf8() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("source", blocks("python"), ids=range(len(blocks("python"))))
def test_python_block_runs(source: str) -> None:
    exec(compile(source, "README.md", "exec"), {})


@pytest.mark.parametrize("shown", blocks("console"), ids=range(len(blocks("console"))))
def test_console_block_shows_what_is_printed(shown: str) -> None:
    command, _, output = shown.partition("\n")
    assert output == output_of(command.removeprefix("$ "))


def test_there_are_no_other_blocks_than_these_and_the_two_commands() -> None:
    languages = [name for name, _ in BLOCK.findall(README.read_text(encoding="utf-8"))]
    assert set(languages) == {"python", "console", "sh"}
    assert [block.strip() for block in blocks("sh")] == [
        "python -m pip install -c constraints.txt . && blockdsl train",
        "python -m pip install -c constraints.txt '.[test]' && python -m pytest",
    ]
    assert len(blocks("python")) >= 4
    assert len(blocks("console")) >= 4


def refresh() -> None:
    """Write the console blocks' outputs into the README."""

    def fresh(found: re.Match[str]) -> str:
        if found[1] != "console":
            return found[0]
        command = found[2].partition("\n")[0]
        return f"```console\n{command}\n{output_of(command.removeprefix('$ '))}```"

    README.write_text(BLOCK.sub(fresh, README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    refresh()
