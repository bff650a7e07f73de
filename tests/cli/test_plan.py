"""`blockdsl plan`: the table, one mesh, JSON, pictures, and what is said where it cannot be."""

from __future__ import annotations

import json
import re
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
    assert "mesh pp=4,tp=2 · 8 ranks · 16 micro-batches of 1 row · fits" in ran.out
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


SIZES = ("--dim", "32", "--heads", "4")
MISTAKES: tuple[tuple[tuple[str, ...], int, str], ...] = (
    # of devices and their memory
    (("--gpus", "0"), 1, "gpus must be a whole number of at least 1, not 0"),
    (("--gpus", "-1"), 1, "gpus must be a whole number of at least 1, not -1"),
    (("--gpus", "many"), 2, "argument --gpus: invalid int value: 'many'"),
    (("--gpus", "11"), 1, "no mesh of 11 devices can run this: batch=16 is not divisible by dp × fsdp=11"),
    (("--gpus", "8", "--memory", "80"), 1, "memory '80' names no unit: 80GB? (80B are bytes)"),
    (("--gpus", "8", "--memory", "80GX"), 1, "memory '80GX': unknown unit 'GX'; as in 80GB or 80GiB"),
    (("--gpus", "8", "--memory=-1GB"), 1, "memory must be a size such as 80GB, not '-1GB'"),
    (("--gpus", "8", "--memory", "-1GB"), 2, "there is no option -1GB"),
    (("--gpus", "8", "--memory", "0GB"), 1, "memory must be a number above 0, not 0"),
    (("--gpus", "8", "--memory", ""), 1, "memory must be a size such as 80GB, not ''"),
    (("--gpus", "8", "--memory", "80,5GB"), 1, "memory must be a size such as 80GB, not '80,5GB'"),
    (("--gpus", "8", "--reserve", "1"), 1, "reserve must be a number of at least 0 and below 1, not 1"),
    # of a step
    (("--gpus", "8", "--batch", "0"), 1, "batch must be a whole number of at least 1, not 0"),
    (("--gpus", "8", "--micro-batch", "3"), 1, "rows a rank=2 is not divisible by micro_batch=3"),
    (("--gpus", "8", "--micro-batch", "0"), 1, "micro_batch must be a whole number of at least 1, not 0"),
    (("--gpus", "8", "--seq-len", "0"), 1, "seq_len must be a whole number of at least 1, not 0"),
    (("--gpus", "8", "--seq-len", "65"), 1, "seq_len=65 is above the model's max_seq_len=64"),
    (("--gpus", "8", "--seq-len", "1" + "0" * 30), 1, "seq_len must be below 1e18"),
    (("--gpus", "8", "--precision", "fp16"), 1, "did you mean 'bf16'?"),
    (("--gpus", "8", "--optimizer", "adam"), 1, "did you mean 'adamw'?"),
    (("--gpus", "8", "--schedule", "1f2b"), 1, "did you mean '1f1b'?"),
    (("--gpus", "8", "--checkpoint", "all"), 1, "checkpoint must be one of none, block, stage, not 'all'"),
    # of the mesh
    ((), 2, "one of the arguments --gpus --mesh is required"),
    (("--gpus", "8", "--mesh", "dp=2"), 2, "argument --mesh: not allowed with argument --gpus"),
    (("--mesh", "pp=16"), 1, "pp=16: a pipeline needs a block for each of its 16 stages; the stack has 8 blocks"),
    (("--mesh", "dp=5"), 1, "batch=16 is not divisible by dp × fsdp=5"),
    (("--mesh", "ep=2"), 1, "there is no axis 'ep': tp splits experts as it does heads"),
    (("--mesh", "data=2"), 1, "there is no axis 'data'; did you mean 'dp'?"),
    (("--mesh", "8"), 1, "there is no axis '8'; the axes are pp, dp, fsdp, cp, tp"),
    (("--mesh", ""), 1, "the mesh is empty; give ranks along an axis, as dp=2"),
    (("--mesh", "dp"), 1, "dp needs a number of ranks, as in dp=2"),
    (("--mesh", "dp=0"), 1, "dp needs a number of ranks, as in dp=2"),
    (("--mesh", "dp=2,dp=2"), 1, "dp is said twice"),
    # of pictures and JSON
    (("--mesh", "pp=2", "-o", "plan.gif"), 1, "a picture's name ends in"),
    (("--mesh", "pp=2", "-o", "/nowhere/plan.svg"), 1, "cannot write /nowhere/plan.svg"),
)


@pytest.mark.parametrize(("arguments", "status", "message"), MISTAKES)
def test_what_cannot_be(blockdsl: Run, arguments: tuple[str, ...], status: int, message: str) -> None:
    ran = blockdsl("plan", *MODEL, *arguments)
    assert (ran.status, ran.out) == (status, "")
    assert message in ran.err


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "the pattern is empty"),
        ("(a f*2", "this '(' is never closed"),
        ("(q f)*2", "unknown block 'q'"),
        ("missing.pattern", "there is no file missing.pattern"),
        ("notes.txt", "notes.txt:1:1: unknown block 'hello'"),
        ("empty.pattern", "empty.pattern:1:1: the pattern is empty"),
        ("folder", "folder is a folder without a graph.json or a config.json"),
        ("zoo:llama3-70", "the zoo has no 'llama3-70'; did you mean 'llama3-70b'?"),
        ("gpt2", "gpt2 is no pattern; the published model is zoo:gpt2"),
        ("config.json", "config.json: "),
    ],
)
def test_what_is_no_model(
    blockdsl: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name, text in {"notes.txt": "hello", "empty.pattern": "", "config.json": '{"model_type": "none"}'}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    ran = blockdsl("plan", pattern, "--gpus", "2")
    assert (ran.status, ran.out) == (1, "")
    assert message in ran.err


def test_rows_are_no_longer_than_the_model_takes(blockdsl: Run, tmp_path: Path) -> None:
    """Of a configuration of transformers and its folder too, unless --seq-len is given."""
    gpt2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50, "n_positions": 48}
    (tmp_path / "config.json").write_text(json.dumps(gpt2), encoding="utf-8")
    for path in (tmp_path, tmp_path / "config.json"):
        assert "256 rows of 48 tokens a step" in blockdsl("plan", str(path), "--gpus", "2").out
    assert "of 1,024 tokens" in blockdsl("plan", "a f", *SIZES, "--gpus", "2").out


def test_heads_that_do_not_split(blockdsl: Run) -> None:
    ran = blockdsl("plan", *MODEL, "--mesh", "tp=8")
    assert ran.status == 0
    assert "heads=4 is not divisible by 8" in ran.out


# JSON and text -----------------------------------------------------------------------------------------------------

UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def said(text: str, number: float) -> bool:
    """Whether a size in words, `70.4 GB`, is this number, rounded."""
    value, unit = text.split()
    factor = UNITS[unit]
    return abs(float(value.replace(",", "")) * factor - number) <= 0.0501 * factor


def test_the_table_says_what_the_json_says(blockdsl: Run) -> None:
    arguments = (*MODEL, "--gpus", "8", "--memory", "1MB")
    found = json.loads(blockdsl("plan", *arguments, "--json").out)
    text = blockdsl("plan", *arguments, "--all").out.split("\n\n")
    assert text[0].startswith(f"{found['parameters']:,} parameters · 16 rows of 64 tokens a step\n")
    rows = [re.split(r"\s{2,}", line) for line in text[1].splitlines()[2:]]
    assert len(rows) == len(found["meshes"]) > 10
    for row, mesh in zip(rows, found["meshes"], strict=True):
        fullest = max(mesh["ranks"], key=lambda rank: rank["memory"])
        assert row[0].removesuffix(" ✗") == mesh["mesh"]
        assert row[0].endswith("✗") == (mesh["fits"] is False)
        assert row[1:3] == [f"{mesh['micro_batches']} × {mesh['micro_batch']}", mesh["checkpoint"]]
        kept = sum(fullest[f"{what}_bytes"] for what in ("parameter", "gradient", "optimizer"))
        amounts = (mesh["memory"], kept, fullest["gathered_bytes"], fullest["activation_bytes"][mesh["checkpoint"]])
        assert all(said(words, number) for words, number in zip(row[3:7], amounts, strict=True))
        assert row[7] == f"{mesh['useful']:.0%}"
        assert said(row[8], mesh["sent"])
        assert mesh["sent"] == max(sum(message["sent"] for message in rank["sent"]) for rank in mesh["ranks"])
    fitting = sum(mesh["fits"] for mesh in found["meshes"])
    assert f"{fitting} of {len(rows)} meshes fit" in text[2]


def test_one_mesh_says_what_the_json_says(blockdsl: Run) -> None:
    arguments = (*MODEL, "--mesh", "pp=2,tp=2")
    (mesh,) = json.loads(blockdsl("plan", *arguments, "--json").out)["meshes"]
    parts = blockdsl("plan", *arguments).out.split("\n\n")
    for rank, part in zip(mesh["ranks"], parts[1:3], strict=True):
        lines = {line[:15].strip(): line[15:].strip() for line in part.splitlines()[1:]}
        assert all(block in lines["blocks"] for block in (rank["stages"][0][0], rank["stages"][0][-1]))
        for name, key in (("parameters", "parameter"), ("gradients", "gradient"), ("optimiser", "optimizer")):
            assert said(lines[name], rank[f"{key}_bytes"])
        assert said(lines["cache a row"], rank["cache_bytes"])
        assert lines["FLOPs a step"] == f"{rank['flops']:,}"
        of_kinds = dict(each.split(" ", 1) for each in lines["activations"].partition(",")[0].split(" · "))
        assert all(said(of_kinds[name], number) for name, number in rank["activation_bytes"].items())
        for message in rank["sent"]:
            assert said(lines[f"{message['link']} {message['operation']}"], message["sent"])


def test_the_keys_of_the_json_are_those_of_the_page(blockdsl: Run) -> None:
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    table = page.partition("| key | what it is |")[2].partition("\n\n")[0]
    documented = set(re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines()[2:])))
    found = json.loads(blockdsl("plan", *MODEL, "--mesh", "pp=2", "--json").out)
    (mesh,) = found["meshes"]
    assert {*found, *mesh, *mesh["ranks"][0], *mesh["ranks"][0]["sent"][0]} == documented
