"""The package lists what is in the tree, and imports stay light."""

from __future__ import annotations

import os
import re
import shutil
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
    code = f"{shown}\nprint('then')\n{work}\n{shown}"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    for names in map(str.split, out.stdout.split("then\n")):
        assert names == sorted(import_module(package).__all__)
        assert all(hasattr(import_module(package), name) for name in names)


# Wherever it is, however it is run ------------------------------------------------------------------------------------

WORK = """
import torch, blockdsl, xt_blocks
from xt_blocks.cli import main
graph = blockdsl.compile("(a f)*2", dim=16, heads=2, causal=True, num_tokens=8, max_seq_len=8)
print("<script" in graph.to_html())
model = xt_blocks.lower(graph)
print(*xt_blocks.AutoregressiveWrapper(model).generate(torch.zeros(1, 1, dtype=torch.long), 4).shape)
main(["check", "a | f"])
try:
    xt_blocks.Decoder(dim=16, depth=1, heds=2)
except TypeError as error:
    print(error)
print(blockdsl.__file__, xt_blocks.__file__)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both packages as they are installed, in a folder that nothing may write to."""
    folder = tmp_path_factory.mktemp("site")
    ignore = shutil.ignore_patterns("__pycache__")
    for top in ("blockdsl", "xt_blocks"):
        shutil.copytree(ROOT / top, folder / top, ignore=ignore)
    shutil.copytree(ROOT / "grammar", folder / "blockdsl" / "grammar", ignore=ignore)
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


@pytest.fixture(scope="module")
def archive(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a zip."""
    return Path(shutil.make_archive(str(tmp_path_factory.mktemp("zip") / "packages"), "zip", site))


@pytest.mark.parametrize(
    ("place", "flags"),
    [
        ("site", ["-I", "-OO"]),
        ("archive", ["-I"]),
        pytest.param("site", ["-I"], marks=pytest.mark.thorough),
        pytest.param("archive", ["-I", "-OO"], marks=pytest.mark.thorough),
    ],
)
def test_they_work_from_a_zip_isolated_optimized_and_where_nothing_is_written(
    place: str, flags: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """`-I` leaves out the working directory, PYTHONPATH and the user's own packages; `-OO` has no docstrings."""
    path: Path = request.getfixturevalue(place)
    before = sorted((str(found), found.stat().st_mtime_ns) for found in path.rglob("*"))
    code = f"import sys; sys.path.insert(0, {str(path)!r}); sys.dont_write_bytecode = True\n{WORK}"
    ran = subprocess.run(
        [sys.executable, *flags, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    page, shape, ok, told, places = ran.stdout.splitlines()
    assert (page, shape, ok) == ("True", "1 4", "ok: 2 blocks in 2 stages")
    assert told == "Decoder() got an unknown argument 'heds'; did you mean 'heads'?"
    assert places.split() == [str(path / top / "__init__.py") for top in ("blockdsl", "xt_blocks")]
    assert sorted((str(found), found.stat().st_mtime_ns) for found in path.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []


AGAIN = """
import importlib, os, sys, torch, blockdsl, xt_blocks
def use(blockdsl, xt_blocks):
    graph = blockdsl.compile("a f", dim=16, heads=2, causal=True, num_tokens=8, max_seq_len=8)
    model = xt_blocks.lower(graph)
    xt_blocks.AutoregressiveWrapper(model).generate(torch.zeros(1, 1, dtype=torch.long), 4)
    work(model)
    return model
def work(model):
    model(torch.zeros(2, 5, dtype=torch.long)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
first = use(blockdsl, xt_blocks)
def forget(*packages):
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]
def in_a_fork(again):
    exec(again, globals())
    exec("import blockdsl, xt_blocks; use(blockdsl, xt_blocks); work(first)", globals())
for again in AGAIN:
    child = os.fork()
    if not child:
        failed = True
        try:
            in_a_fork(again)
            failed = False
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(failed)
    if os.waitpid(child, 0)[1]:
        sys.exit("after " + again)
"""
WAYS = [
    "forget('blockdsl', 'xt_blocks')",
    "forget('xt_blocks')",
    "forget('blockdsl')",
    "importlib.reload(blockdsl); importlib.reload(xt_blocks)",
    "for name in ('blockdsl.registry.builtin', 'xt_blocks.kernels.ops', 'xt_blocks.blocks.packed', 'xt_blocks.cli'):\n"
    "    importlib.reload(importlib.import_module(name))",
]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_they_are_imported_again_in_one_process() -> None:
    """As notebooks, test runners and plugin hosts do; models made before go on working. Each in a fork of one import."""
    code = AGAIN.replace("for again in AGAIN", f"for again in {WAYS!r}")
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_little_of_every_area_is_fast() -> None:
    """`pytest -m fast` leaves no folder of tests out, and names none that is not there."""
    here = Path(__file__).parent
    listed = (here / "conftest.py").read_text(encoding="utf-8").partition("\nFAST = (")[2].partition("\n)")[0]
    fast = re.findall(r'^    "(\S+)",$', listed, re.MULTILINE)
    assert {name.partition("/")[0] for name in fast if "/" in name} == {
        path.parent.name for path in here.glob("*/test_*.py")
    }
    for name in fast:
        path, _, test = name.partition("::")
        assert f"def {test}(" in (here / path).read_text(encoding="utf-8") if test else (here / path).is_file(), name
