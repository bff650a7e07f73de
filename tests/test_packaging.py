"""The package lists what is in the tree, and imports stay light."""

from __future__ import annotations

import re
import subprocess
import sys
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest depends on it there

ROOT = Path(__file__).parent.parent


def test_every_package_of_the_tree_is_listed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    in_tree = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("blockdsl", "xt_blocks")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert listed == in_tree | {"blockdsl.grammar"}


def test_every_other_file_of_a_package_is_listed() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    files = [path for top in ("blockdsl", "grammar", "xt_blocks") for path in (ROOT / top).rglob("*.*")]
    others = {path.name for path in files if path.suffix not in (".py", ".pyc", ".md")}
    assert {"page.css", "page.html", "page.js", "py.typed"} <= others
    assert [name for name in others if not any(fnmatch(name, pattern) for pattern in patterns)] == []


def test_both_packages_say_that_they_are_typed() -> None:
    assert (ROOT / "blockdsl" / "py.typed").is_file()
    assert (ROOT / "xt_blocks" / "py.typed").is_file()


def loaded_after(code: str) -> set[str]:
    """The modules a fresh interpreter holds after running this."""
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(out.stdout.split())


def test_the_language_and_the_graph_load_no_torch() -> None:
    work = "g = blockdsl.compile('a f', dim=8); g.flops(4); g.to_text(); g.to_svg(); blockdsl.BlockGraph.from_json(g.to_json())"
    assert "torch" not in loaded_after(f"import blockdsl\n{work}")


def test_that_check_can_fail() -> None:
    assert "torch" in loaded_after("import xt_blocks.models.lower")


def test_import_blockdsl_loads_no_networkx() -> None:
    assert "networkx" not in loaded_after("import blockdsl\nblockdsl.parse('a f')")


def test_import_xt_blocks_loads_nothing_heavy_beside_torch() -> None:
    own = loaded_after("import xt_blocks; xt_blocks.Decoder") - loaded_after("import torch")
    assert not {"networkx", "matplotlib", "tqdm", "safetensors"} & own


def test_both_packages_have_the_version_of_the_distribution() -> None:
    """blockdsl says it; the build reads it there, without an import."""
    import blockdsl
    import xt_blocks

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "blockdsl.__version__"}
    assert blockdsl.__version__ == xt_blocks.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", blockdsl.__version__)


def test_the_changelog_and_the_citation_are_of_the_last_release() -> None:
    import blockdsl

    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## (.*)$", changelog, re.MULTILINE)
    releases = [
        re.fullmatch(r"(\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)", title) for title in titles if title != "Unreleased"
    ]
    assert all(releases), "a release is '## 0.1.0 (2026-11-24)'"
    last = releases[0]
    assert last is not None
    if "dev" in blockdsl.__version__:
        assert titles[0] == "Unreleased"
        assert blockdsl.__version__.split(".dev")[0] > last[1]
    else:
        assert blockdsl.__version__ == last[1]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {last[1]}\n" in citation
    assert f'date-released: "{last[2]}"\n' in citation


@pytest.mark.parametrize("package", ["blockdsl", "xt_blocks"])
def test_completion_shows_the_public_names_and_nothing_else(package: str) -> None:
    """In a fresh interpreter before and after a model is made, since what is loaded becomes an attribute."""
    work = "import blockdsl, xt_blocks; xt_blocks.lower(blockdsl.compile('a f', dim=8, heads=2)); blockdsl.parse('a')"
    shown = f"import {package}\nprint('\\n'.join(sorted(dir({package}))))"
    for before in ("pass", work):
        out = subprocess.run(
            [sys.executable, "-c", f"{before}\n{shown}"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        names = out.stdout.split()
        assert names == sorted(import_module(package).__all__)
        assert all(hasattr(import_module(package), name) for name in names)


def test_a_little_of_every_area_is_fast() -> None:
    """`pytest -m fast` leaves no folder of tests out, and names none that is not there."""
    here = Path(__file__).parent
    fast = re.findall(r'^    "(\S+)",$', (here / "conftest.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name.partition("/")[0] for name in fast if "/" in name} == {
        path.parent.name for path in here.glob("*/test_*.py")
    }
    for name in fast:
        path, _, test = name.partition("::")
        assert f"def {test}(" in (here / path).read_text(encoding="utf-8") if test else (here / path).is_file(), name
