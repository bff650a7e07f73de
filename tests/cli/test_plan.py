"""`blockdsl plan`: the table, one mesh, JSON, pictures, and what is said where it cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Ran

Run = Callable[..., Ran]
MODEL = (
    "(a f)*4",
    "--dim",
    "32",
    "--heads",
    "4",
    "--set",
    "num_tokens=50,max_seq_len=64",
    "--seq-len",
    "64",
    "--batch",
    "16",
)


def test_a_table_of_all_meshes(blockdsl: Run) -> None:
    ran = blockdsl("plan", *MODEL, "--gpus", "8", "--memory", "1GB")
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[1] == "bf16 · adamw · 1f1b · 1.0 GB a device, of which 10% is left to what is not counted"
    assert lines[3].split("  ")[0] == "mesh"
    assert "meshes fit; ✗ does not" in ran.out
    assert "more are not shown; --all shows them" in ran.out
    every = blockdsl("plan", *MODEL, "--gpus", "8", "--memory", "1GB", "--all").out.splitlines()
    assert len(every) > len(lines) + 5


def test_one_mesh_with_its_cuts(blockdsl: Run) -> None:
    ran = blockdsl("plan", *MODEL, "--mesh", "pp=4,tp=2", "--memory", "1GiB")
    assert (ran.status, ran.err) == (0, "")
    assert "mesh pp=4,tp=2 · 8 ranks · 16 micro-batches of 1 rows · fits" in ran.out
    assert "a rank waits 15.8% of a step, were its stages equal" in ran.out
    for words in ("ranks 0-1 ·", "ranks 6-7 ·", "tp all-reduce", "pp send", "├─ stage 4: ranks 6-7 ·"):
        assert words in ran.out


def test_json(blockdsl: Run) -> None:
    ran = blockdsl("plan", *MODEL, "--gpus", "4", "--memory", "20kB", "--json")
    found = json.loads(ran.out)
    assert (found["memory"], found["seq_len"], found["batch"], found["precision"]) == (20_000, 64, 16, "bf16")
    assert {mesh["mesh"] for mesh in found["meshes"]} > {"fsdp=4", "pp=2,tp=2", "dp=2,fsdp=2"}
    assert {mesh["fits"] for mesh in found["meshes"]} == {False}
    (rank,) = next(mesh for mesh in found["meshes"] if mesh["mesh"] == "fsdp=4")["ranks"]
    assert rank["parameters"] == found["parameters"]
    assert {(m["link"], m["operation"]) for m in rank["sent"]} == {("fsdp", "gather"), ("fsdp", "scatter")}
    assert set(rank["activation_bytes"]) == {"none", "block", "stage"}


def test_a_picture_of_the_cuts(blockdsl: Run, tmp_path: Path) -> None:
    ran = blockdsl("plan", *MODEL, "--mesh", "pp=2", "-o", str(tmp_path / "plan.svg"))
    assert ran.status == 0
    drawn = (tmp_path / "plan.svg").read_text(encoding="utf-8")
    assert "stage 2: rank 1 · " in drawn
    assert blockdsl("plan", *MODEL, "--mesh", "pp=2", "-o", "plan.gif").status == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mesh", "pp=16"), "pp=16: a pipeline needs a block for each of its 16 stages; the stack has 8 blocks"),
        (("--mesh", "tp=8"), "heads=4 is not divisible by 8"),
        (("--mesh", "dp=5"), "batch=16 is not divisible by dp × fsdp=5"),
        (("--gpus", "8", "--memory", "80GX"), "memory '80GX': unknown unit 'GX'; as in 80GB or 80GiB"),
        (("--gpus", "8", "--schedule", "1f2b"), "did you mean '1f1b'?"),
    ],
)
def test_what_cannot_be(blockdsl: Run, arguments: tuple[str, ...], message: str) -> None:
    ran = blockdsl("plan", *MODEL, *arguments)
    if arguments == ("--mesh", "tp=8"):  # feedforwards split, heads do not
        assert message in ran.out
        return
    assert ran.status == 1
    assert message in ran.err
