"""torch's private names stand in one module, and without any one of them a model runs and gives the same."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from .without import HIDDEN

ROOT = Path(__file__).parent.parent.parent
HOME = Path("xt_blocks", "kernels", "compat.py")
PUBLIC_NAMES_TOO = {"flex_attention", "mark_static_address", "register_optimizer_step_post_hook"}
"""Public, or called so, yet not in every torch."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def private_attributes() -> set[str]:
    """Of tensors, modules and optimizers."""
    weight = nn.Parameter(torch.zeros(1))
    return {name for of in (weight, nn.Module(), torch.optim.SGD([weight])) for name in dir(of) if is_private(name)}


ATTRIBUTES = private_attributes()


def private_names(source: str) -> Iterator[tuple[int, str]]:
    """The line and the name of whatever in the source is private to torch."""
    tree = ast.parse(source)
    from_torch = {"torch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] == "torch":
                    from_torch.add(name.asname or "torch")
                    yield from ((node.lineno, part) for part in name.name.split(".") if is_private(part))
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "torch":
            parts = [*(node.module or "").split("."), *(name.name for name in node.names)]
            from_torch |= {name.asname or name.name for name in node.names}
            yield from ((node.lineno, part) for part in parts if is_private(part) or part in PUBLIC_NAMES_TOO)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts = ast.unparse(node).split(".")
            if (parts[0] in from_torch and (is_private(node.attr) or node.attr in PUBLIC_NAMES_TOO)) or (
                parts[0] not in ("self", "cls") and node.attr in ATTRIBUTES
            ):
                yield node.lineno, node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in ATTRIBUTES:
            yield node.lineno, node.value


def test_no_other_file_names_what_is_private_to_torch() -> None:
    files = [
        *(ROOT / "blockdsl").rglob("*.py"),
        *(ROOT / "xt_blocks").rglob("*.py"),
        *(ROOT / "examples").rglob("*.py"),
    ]
    assert ROOT / HOME in files
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in files
        if path != ROOT / HOME
        for line, name in private_names(path.read_text(encoding="utf-8"))
    ]
    assert not found


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import torch\ntorch._C._is_tracing()", "_is_tracing"),
        ("import torch\nop = torch.ops.mkldnn._linear_pointwise", "_linear_pointwise"),
        ("import torch._dynamo", "_dynamo"),
        ("import torch.nn.modules as m\nm._x", "_x"),
        ("from torch.nn.modules.conv import _ConvNd", "_ConvNd"),
        ("from torch.autograd import forward_ad\nforward_ad._current_level", "_current_level"),
        ("from torch.nn.attention.flex_attention import create_block_mask", "flex_attention"),
        ("weight._version", "_version"),
        ("module._forward_hooks", "_forward_hooks"),
        ("getattr(module, '_forward_hooks')", "_forward_hooks"),
    ],
)
def test_each_way_to_name_one_is_found(source: str, name: str) -> None:
    assert name in [found for _, found in private_names(source)]


def test_what_is_public_or_ours_is_not_found() -> None:
    assert not list(
        private_names("import torch\nfrom torch import nn\nself._packed = torch.ops.xt_blocks.packed(x)\nx._own")
    )


@pytest.fixture(scope="module")
def runs() -> dict[str, Any]:
    """What a model gives without each of the names, and under "" with all: a process for each."""
    script = Path(__file__).with_name("without.py")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=env, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return {run["without"]: run for run in map(json.loads, done.stdout.splitlines())}


def test_each_name_that_is_looked_up_is_taken_away(runs: dict[str, Any]) -> None:
    assert set(runs[""]["looked_up"]) == set(HIDDEN)


@pytest.mark.parametrize("name", HIDDEN)
def test_without_a_name_a_model_gives_the_same(name: str, runs: dict[str, Any]) -> None:
    plain, run = runs[""], runs[name]
    assert run.get("error") is None, run["error"]
    assert run["looked_up"] == {**plain["looked_up"], name: False}
    assert run["tokens"] == plain["tokens"]
    for what in ("loss", "gradient", "logits", "packed", "trained"):
        expected = torch.tensor(plain[what])
        difference = (torch.tensor(run[what]) - expected).abs().max() / expected.abs().max()
        assert difference < 1e-5, what  # another kernel rounds differently


def test_this_torch_has_every_name(runs: dict[str, Any]) -> None:
    """A release that drops one is noticed here, and not by its speed."""
    assert not [name for name, found in runs[""]["looked_up"].items() if not found]
