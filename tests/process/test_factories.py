"""Every tensor that is made from nothing says its dtype and its device, so that no default of the process decides them.

A factory that follows a tensor (`new_zeros`, `zeros_like`) says both by that. A parameter, and what a module is built
from, is meant to follow the defaults, as torch's own modules do.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[2] / "xt_blocks"

FACTORIES = {
    *("zeros", "ones", "empty", "full", "arange", "range", "tensor", "as_tensor", "asarray", "scalar_tensor", "eye"),
    *("linspace", "logspace", "rand", "randn", "randint", "randperm", "normal", "tril_indices", "triu_indices"),
    *("hann_window", "empty_strided", "empty_permuted", "complex", "sparse_coo_tensor"),
}

MEANT = {"Parameter": "a parameter at construction"}
"""Calls around a factory that mean it to follow the process's defaults, and why."""


class Nameless(NamedTuple):
    """A factory call that leaves something to the defaults."""

    text: str
    line: int
    missing: tuple[str, ...]


def nameless(source: str) -> Iterator[Nameless]:
    """The factory calls of a source that do not name dtype and device."""
    tree = ast.parse(source)
    meant = {inner for outer in ast.walk(tree) if _name(outer) in MEANT for inner in ast.walk(outer)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_factory(node) and node not in meant:
            missing = tuple(name for name in ("dtype", "device") if name not in {word.arg for word in node.keywords})
            if missing:
                yield Nameless(ast.unparse(node), node.lineno, missing)


def _is_factory(call: ast.Call) -> bool:
    called = call.func
    of_torch = isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "torch"
    return of_torch and called.attr in FACTORIES


def _name(node: ast.AST) -> str:
    called = node.func if isinstance(node, ast.Call) else None
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_factory_call_names_its_dtype_and_device(path: Path) -> None:
    found = [
        f"line {one.line}: {one.text} names no {' and no '.join(one.missing)}" for one in nameless(path.read_text())
    ]
    assert found == []


def test_no_module_imports_factories_by_name() -> None:
    """They would be called without `torch.`, where the test above does not look."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "torch":
                assert not {alias.name for alias in node.names} & FACTORIES, path


def test_that_the_check_can_fail() -> None:
    source = "torch.zeros(3)\ntorch.eye(2, device=d)\nnn.Parameter(torch.ones(3))\nx.new_zeros(3)\ntorch.zeros_like(x)"
    assert [(one.line, one.missing) for one in nameless(source)] == [(1, ("dtype", "device")), (2, ("dtype",))]
