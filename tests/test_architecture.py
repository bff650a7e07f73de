"""Imports run in one direction: down the list of layers, and never in a circle.

Every import statement is an arrow, at whatever depth it stands: at the head of a module, inside a function (lazy), or
for the type checker alone (typing). The three are told apart in messages and held to the same rule.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import networkx as nx

ROOT = Path(__file__).parent.parent
PACKAGES = ("blockdsl", "xt_blocks")

# From the bottom up. A module imports from its own layer and from those before it.
LAYERS = (
    ("blockdsl.errors", "blockdsl.files", "blockdsl.measurement", "blockdsl.signs", "blockdsl.synonyms"),
    ("blockdsl.registry",),
    ("blockdsl.language",),
    ("blockdsl.graph",),
    ("blockdsl.plan",),
    ("blockdsl.draw", "blockdsl.reference", "blockdsl.signatures"),
    ("blockdsl.api",),
    ("blockdsl.zoo",),
    ("blockdsl.editor", "blockdsl.hugging_face", "blockdsl.measurements"),
    ("blockdsl",),
    ("xt_blocks.kernels", "xt_blocks.positions", "xt_blocks.blocks"),
    ("xt_blocks.runtime",),
    ("xt_blocks.models",),
    ("xt_blocks.generation",),
    ("xt_blocks.interop", "xt_blocks.x_transformers"),
    ("xt_blocks.distributed",),
    ("xt_blocks.train",),
    ("xt_blocks.measure",),
    ("xt_blocks.cli",),
    ("xt_blocks",),
)


class Arrow(NamedTuple):
    """One module imports from another; `how`: "at import", "lazy" or "typing"."""

    source: str
    target: str
    how: str

    def __str__(self) -> str:
        return f"{self.source} -> {self.target} ({self.how})"


def modules(root: Path) -> dict[str, Path]:
    """Each module of the packages by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def arrows(sources: Mapping[str, str], packages: frozenset[str] = frozenset()) -> list[Arrow]:
    """Every import among the modules; `sources`: text by name. `packages`: those that are an `__init__`."""
    out = []
    for name, text in sources.items():
        for node, how in _imports(ast.parse(text), "at import"):
            for target in _targets(node, name, name in packages, sources):
                if target != name and not name.startswith(f"{target}."):
                    out.append(Arrow(name, target, how))
    return out


def _imports(node: ast.AST, how: str) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, how
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _imports(child, "typing")
        else:
            lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, "lazy" if lazy and how == "at import" else how)


def _targets(node: ast.Import | ast.ImportFrom, name: str, is_package: bool, known: Mapping[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (_module(alias.name, known) for alias in node.names if alias.name.split(".")[0] in PACKAGES)
        return
    base = name.split(".")
    base = base[: len(base) - node.level + is_package] if node.level else []
    path = ".".join([*base, *(node.module or "").split(".")]).strip(".")
    if path.split(".")[0] in PACKAGES:
        yield from {_module(f"{path}.{alias.name}", known) for alias in node.names}


def _module(path: str, known: Mapping[str, str]) -> str:
    """The module that a dotted path is, or has a name from."""
    while path not in known:
        path, _, _ = path.rpartition(".")
    return path


def layer(module: str) -> int:
    """The index of a module's layer; that of the longest name that fits."""
    fits = [(len(name), i) for i, names in enumerate(LAYERS) for name in names if f"{module}.".startswith(f"{name}.")]
    return max(fits)[1]


def circles(found: list[Arrow]) -> list[list[str]]:
    graph = nx.DiGraph((arrow.source, arrow.target) for arrow in found)
    return [sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1]


def of_the_tree() -> list[Arrow]:
    found = modules(ROOT)
    packages = frozenset(name for name, path in found.items() if path.name == "__init__.py")
    return arrows({name: path.read_text(encoding="utf-8") for name, path in found.items()}, packages)


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    assert circles(of_the_tree()) == []


def test_nothing_imports_the_names_of_x_transformers() -> None:
    """But the modules at the paths that its clients know, which hand them on."""
    folder = "xt_blocks.x_transformers"
    from_outside = {arrow.source for arrow in of_the_tree() if f"{arrow.target}.".startswith(f"{folder}.")}
    paths = {f"xt_blocks.{path.stem}" for path in (ROOT / "xt_blocks").glob("*.py")} - {"xt_blocks.__init__"}
    assert {source for source in from_outside if not f"{source}.".startswith(f"{folder}.")} == paths


def test_no_import_runs_upward() -> None:
    upward = [str(arrow) for arrow in of_the_tree() if layer(arrow.target) > layer(arrow.source)]
    assert upward == []


def test_blockdsl_never_imports_torch_or_what_is_built_on_it() -> None:
    for name, path in modules(ROOT).items():
        if name.partition(".")[0] == "blockdsl":
            for node, how in _imports(ast.parse(path.read_text(encoding="utf-8")), "at import"):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                taken = {imported.partition(".")[0] for imported in names} & {"torch", "xt_blocks"}
                assert not taken, f"{name} imports {taken} ({how})"


def test_that_the_checks_can_fail() -> None:
    at_import = {"blockdsl.draw.a": "from ..graph.b import x", "blockdsl.graph.b": "import blockdsl.draw.a"}
    lazy = at_import | {"blockdsl.graph.b": "def f():\n    from ..draw import a"}
    typing = at_import | {"blockdsl.graph.b": "if TYPE_CHECKING:\n    from ..draw.a import x"}
    for sources, how in ((at_import, "at import"), (lazy, "lazy"), (typing, "typing")):
        found = arrows(sources)
        assert circles(found) == [["blockdsl.draw.a", "blockdsl.graph.b"]]
        upward = [arrow for arrow in found if layer(arrow.target) > layer(arrow.source)]
        assert upward == [Arrow("blockdsl.graph.b", "blockdsl.draw.a", how)]
    assert circles(arrows({"blockdsl.draw.a": "from ..graph.b import x", "blockdsl.graph.b": ""})) == []
