"""The test suite in every environment of the promised range: the lowest torch, the pinned one, the newest; each Python.

    python -m tests.environments                       # all of them, one after the other
    python -m tests.environments lowest newest         # some
    python -m tests.environments 3.13 -- tests/blocks  # part of the suite; pytest's arguments follow "--"

For each, this makes a virtual environment below runs/environments, installs the package there with pip, runs pytest and
prints a row of a table. The Pythons are those on the PATH (python3.10, ...) or of pyenv. torch from PyPI takes about
6 GB and is deleted after its run, unless `--keep` is given; the whole suite takes some minutes in each. Run it before a
release, and after a change of `dependencies` in pyproject.toml: "lowest" reads their bounds from there.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
BELOW = ROOT / "runs" / "environments"
TOLD = "torch", "numpy", "networkx", "lark"
"""Packages whose releases the table has."""


class Environment(NamedTuple):
    """One row: the Python, and which releases of the dependencies: "lowest", "pinned" in constraints.txt, "newest"."""

    name: str
    python: str
    releases: str


ENVIRONMENTS = (
    Environment("lowest", "3.10", "lowest"),
    Environment("3.10", "3.10", "newest"),
    Environment("pinned", "3.11", "pinned"),
    Environment("newest", "3.11", "newest"),
    Environment("3.12", "3.12", "newest"),
    Environment("3.13", "3.13", "newest"),
)


def interpreter(version: str) -> str | None:
    """A Python of that version, such as "3.10"; None: there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [f"python{version}", *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")), reverse=True)]
    for path in filter(None, map(shutil.which, candidates)):
        asked = [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == version:
            return path  # a shim of pyenv is on the PATH, though its version may not be
    return None


def lowest() -> list[str]:
    """The lowest release of each dependency, as constraints: `torch>=2.7` gives `torch==2.7.0`."""
    listed = re.search(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert listed is not None
    found = re.findall(r'"([\w-]+)>=([\d.]+)"', listed[1])
    return [f"{name}=={release}{'.0' * (2 - release.count('.'))}" for name, release in found]


def make(environment: Environment, python: str) -> Path:
    """Its interpreter, with the package and what its tests need installed."""
    home = BELOW / environment.name
    subprocess.run([python, "-m", "venv", "--clear", home], check=True)
    wanted = ["-e", ".[test]"]
    if environment.releases == "pinned":
        wanted += ["-c", "constraints.txt"]
    elif environment.releases == "lowest":
        (home / "lowest.txt").write_text("\n".join(lowest()))
        wanted += ["-c", str(home / "lowest.txt")]
    own = home / "bin" / "python"
    command = [own, "-m", "pip", "install", "--no-cache-dir", *wanted]
    with (BELOW / f"{environment.name}.pip.log").open("w") as log:
        subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=True)
    return own


def releases(python: Path) -> list[str]:
    """Of the packages that are told."""
    asked = f"from importlib.metadata import version as v; print(*map(v, {TOLD}))"
    return subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.split()


def run_suite(environment: Environment, python: Path, arguments: list[str]) -> dict[str, int]:
    """How many tests passed, failed and were skipped."""
    report = BELOW / f"{environment.name}.xml"
    report.unlink(missing_ok=True)
    command = [python, "-m", "pytest", "-n", "2", "--dist", "worksteal", f"--junitxml={report}", *arguments]
    env = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    with (BELOW / f"{environment.name}.log").open("w") as log:
        subprocess.run(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT, check=False)
    if not report.exists():
        return {"passed": 0, "failed": 1, "skipped": 0}  # pytest did not come to its end; the log says why
    counts = ET.parse(report).getroot()[0].attrib
    failed, skipped = int(counts["failures"]) + int(counts["errors"]), int(counts["skipped"])
    return {"passed": int(counts["tests"]) - failed - skipped, "failed": failed, "skipped": skipped}


def row(environment: Environment, arguments: list[str], keep: bool) -> tuple[list[str], bool]:
    """A row of the table, and whether all is well."""
    python = interpreter(environment.python)
    if python is None:
        return [environment.name, environment.python, "no such Python here"], False
    start = time.monotonic()
    try:
        own = make(environment, python)
        counts = run_suite(environment, own, arguments)
        told = [*releases(own), *map(str, counts.values()), f"{time.monotonic() - start:.0f}"]
        return [environment.name, environment.python, *told], not counts["failed"] and counts["passed"] > 0
    except subprocess.CalledProcessError:
        return [
            environment.name,
            environment.python,
            "not made: see its .pip.log",
        ], False
    finally:
        if not keep:
            shutil.rmtree(BELOW / environment.name, ignore_errors=True)


def main() -> int:
    """0 where every environment that was asked for could be made and passes."""
    parser = argparse.ArgumentParser(prog="python -m tests.environments", description=(__doc__ or "").split("\n")[0])
    names = [environment.name for environment in ENVIRONMENTS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(names)}; all without")
    parser.add_argument("--keep", action="store_true", help="keep the environments, 6 GB each")
    own, pytest_arguments = sys.argv[1:], []
    if "--" in own:
        at = own.index("--")
        own, pytest_arguments = own[:at], own[at + 1 :]
    asked = parser.parse_args(own)
    if unknown := [name for name in asked.names if name not in names]:
        parser.error(f"no environment {unknown[0]}; there are {', '.join(names)}")
    BELOW.mkdir(parents=True, exist_ok=True)
    print("| environment | python |", " | ".join(TOLD), "| passed | failed | skipped | seconds |")
    print("| --- " * (6 + len(TOLD)) + "|", flush=True)
    well = True
    for environment in ENVIRONMENTS:
        if not asked.names or environment.name in asked.names:
            cells, fine = row(environment, pytest_arguments, asked.keep)
            well &= fine
            print("|", " | ".join(cells), "|", flush=True)
    print(f"logs: {BELOW.relative_to(ROOT)}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
