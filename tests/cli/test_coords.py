"""`blockdsl coords`: the table, JSON, the picture, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Ran

Run = Callable[..., Ran]
SMALL = ("--widths", "8,16", "--heads", "2", "--seq-len", "8", "--steps", "2")


def test_a_table_and_a_picture(blockdsl: Run, tmp_path: Path) -> None:
    picture = tmp_path / "coords.png"
    ran = blockdsl("coords", "set causal; a gla(dim_head=4)", *SMALL, "--standard", "-o", picture)
    assert (ran.status, ran.err) == (0, "")
    mup, standard, wrote = ran.out.partition("\n\n")[0], ran.out.partition("\n\n")[2], ran.out.splitlines()[-1]
    assert [line.split()[0] for line in mup.splitlines()] == ["muP,", "block", "a0", "gla1", "logits", "muP:"]
    assert mup.splitlines()[1].split() == ["block", "8", "16", "slope"]
    assert standard.startswith("standard, after 2 steps\n")
    assert wrote == f"wrote {picture}"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_json_has_each_step(blockdsl: Run) -> None:
    ran = blockdsl("coords", "a f", *SMALL, "--set", "attn_dim_head=2,tie_embedding", "--json")
    (check,) = json.loads(ran.out)["checks"]
    assert check["name"] == "muP"
    assert check["sizes"].keys() == {"8", "16"}
    assert [[*step] for step in check["sizes"]["8"]] == [["a0", "f1", "logits"]] * 3
    assert check["sizes"]["8"][0]["logits"] == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["a f", "--widths", "8"], "give at least two"),
        (["a f", "--widths", "8,x"], "give at least two"),
        (["a f", "--set", "dim=8"], "--widths says the values of dim"),
        (["a c f"], "reads tokens alone"),
        (["a f", "--set", "return_only_embed"], "reads tokens alone"),
        (["a f => a c f"], "this pattern has two"),
        (["a f", "--set", "max_seq_len=4"], "--seq-len 32 is more than max_seq_len=4"),
        (["a f", "--set", "ff_mlt=2"], "ff_mult"),
        (["a f", "--lr", "0"], "--lr must be more than 0"),
        (["a f", "-o", "x.gif"], "an image's name ends in"),
        (["a f", "-o", "-", "--json"], "both write to standard output"),
    ],
)
def test_what_it_cannot_check_is_said(blockdsl: Run, arguments: list[str], problem: str) -> None:
    ran = blockdsl("coords", *arguments)
    said = ran.err or json.loads(ran.out)["problem"]
    assert ran.status == 1
    assert problem in said
