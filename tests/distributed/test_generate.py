"""`blockdsl generate` of a run over ranks: the text of one process, of a checkpoint that any mesh wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from blockdsl import UserError
from blockdsl.plan.mesh import Mesh
from xt_blocks.cli import main
from xt_blocks.train import RunFolder, load_job, load_trained, sample, sample_over_ranks

from .processes import run
from .test_save import created, on
from .test_train_command import finished, torchrun

DRAWINGS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 0.8, "seed": 3, "top_k": 40},
    {"seed": 4},
    {"beams": 3},
]


class Pairs:
    """A tokenizer whose tokens are two letters of the alphabet each."""

    def encode(self, text: str) -> list[int]:
        return [(ord(a) - 97) * 15 + ord(b) - 97 for a, b in zip(text[::2], text[1::2], strict=True)]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(chr(97 + token // 15) + chr(97 + token % 15) for token in tokens)


def written(path: Path, mesh: str) -> list[bytes]:
    job = load_job(path, Mesh.parse(mesh))
    return [sample_over_ranks(job, RunFolder.open(path), b"the ", 12, **drawing) for drawing in DRAWINGS]


def written_by_pairs(path: Path) -> bytes:
    job = load_job(path, Mesh.parse("fsdp=2"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "read_tokenizer", lambda run: Pairs())
        return sample_over_ranks(job, RunFolder.open(path), b"abcd", 12, temperature=0.0)


@pytest.mark.parametrize("writes", ["one", "pp=2", "tp=2"])
def test_ranks_write_the_text_of_one_process(writes: str, tmp_path: Path) -> None:
    path = created(tmp_path / "run")
    assert on(writes, path, 4) == []
    model = load_trained(path)
    expected = [sample(model, b"the ", 12, **drawing) for drawing in DRAWINGS]
    assert len({*expected}) > 2
    for mesh in ("fsdp=2", "tp=2", "fsdp=2,tp=2")[: 3 if writes == "one" else 2]:
        for found in run(written, Mesh.parse(mesh).size, path, mesh):
            assert found == expected
    start = Pairs().encode("abcd")
    tokens = [*sample(model, bytes(start), 12, temperature=0.0)]
    assert run(written_by_pairs, 2, path)[0].decode() == Pairs().decode(tokens)


def refused(path: Path) -> str:
    job = load_job(path, Mesh.parse("pp=2"))
    with pytest.raises(UserError) as error:
        sample_over_ranks(job, RunFolder.open(path), b"the ", 12)
    return str(error.value)


def test_along_pp_no_rank_can(tmp_path: Path) -> None:
    path = created(tmp_path / "run")
    assert on("one", path, 1) == []
    assert (
        "along pp no rank has the whole model (pp=2): read its checkpoint on another mesh" in run(refused, 2, path)[0]
    )


@pytest.mark.distributed
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = created(tmp_path / "run")
    assert on("pp=2", path, 4) == []
    words = ["generate", str(path), "--prompt", "the ", "--tokens", "12", "--temperature", "0"]
    assert main(words) == 0
    code, out, err = finished(torchrun(2, *words[1:], "--mesh", "tp=2", command="generate"))
    assert (code, out) == (0, capsys.readouterr().out), err
    code, _, err = finished(torchrun(2, str(tmp_path / "none"), command="generate"))
    assert err.count("no such run folder") == 1
