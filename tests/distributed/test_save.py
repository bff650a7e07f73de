"""A run over ranks that meets a full disk, a damaged checkpoint or another mesh loses nothing, and says what it met."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest
import torch.distributed as dist
from torch import Tensor, nn

import blockdsl
from blockdsl import UserError
from blockdsl.plan.mesh import Mesh
from xt_blocks.train import (
    LocalEngine,
    NotFinite,
    RunFolder,
    StopRequest,
    Trainer,
    build_model,
    compile_graph,
    load_data,
)
from xt_blocks.train import checkpoint as files
from xt_blocks.train.mesh import MeshEngine

from .processes import run
from .test_checkpoint import settings
from .test_train_command import numbers

STEPS = 12


class Until:
    """Asks a run to stop after a step."""

    def __init__(self, step: int) -> None:
        self.last, self.stop = step, StopRequest()

    def step(self, record: Any) -> None:
        if record["step"] == self.last:
            self.stop.signal = SIGTERM

    def evaluation(self, record: Any) -> None:
        pass

    def close(self) -> None:
        pass


def created(path: Path, **changes: Any) -> Path:
    """A run's folder."""
    text = path.with_suffix(".txt")
    text.write_text("the quick brown fox jumps over the lazy dog. " * 40)
    own = replace(settings(), text=(str(text),), steps=STEPS, val_every=3, lr=3e-3, **changes)
    own = replace(own, text_digest=load_data(own).digest)
    RunFolder.create(path, own, compile_graph(own).to_json())
    return path


def trained(path: Path, mesh: str, until: int, broken: str = "", rank: int = 0) -> list[str] | str:
    """Go on with a run up to a step: notes on checkpoints, or what was wrong.

    Args:
        broken: the function that finds the disk of one rank full.
    """
    folder = RunFolder.open(path)
    graph, own = folder.graph(), folder.settings
    engine: Any = LocalEngine(build_model(graph, own.seed), own)
    if mesh != "one":
        engine = MeshEngine(graph, own, Mesh.parse(mesh))
    trainer, reporter = Trainer(folder, engine, load_data(own)), Until(until)
    with pytest.MonkeyPatch.context() as patch:
        if broken and dist.get_rank() == rank:
            patch.setattr(broken, full)
        try:
            notes = trainer.restore()
            trainer.train(reporter, reporter.stop)
            engine.close()
        except UserError as error:
            return str(error)
    return notes


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def on(mesh: str, path: Path, *arguments: Any) -> list[str] | str:
    """The same on all ranks, which all say the same."""
    if mesh == "one":
        return trained(path, mesh, *arguments)
    first, *others = run(trained, Mesh.parse(mesh).size, path, mesh, *arguments)
    assert all(other == first for other in others)
    return first


def assert_close(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [record["step"] for record in found] == [record["step"] for record in expected]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-6)


def test_a_run_that_goes_from_mesh_to_mesh_has_the_log_of_an_unbroken_one(tmp_path: Path) -> None:
    moved, unbroken = created(tmp_path / "moved"), created(tmp_path / "unbroken")
    assert on("one", unbroken, STEPS) == []
    for mesh, until in (("fsdp=2", 2), ("pp=2", 5), ("one", 7), ("fsdp=4", 9), ("tp=2", STEPS)):
        assert on(mesh, moved, until) == []
    assert_close(numbers(moved), numbers(unbroken))


@pytest.mark.distributed
def test_muon_goes_from_mesh_to_mesh(tmp_path: Path) -> None:
    """Its updates are of bfloat16, where the last digit of a gradient may change one of an update."""
    moved, unbroken = created(tmp_path / "moved", optimizer="muon"), created(tmp_path / "unbroken", optimizer="muon")
    assert on("one", unbroken, STEPS) == []
    for mesh, until in (("fsdp=2", 4), ("one", 7), ("tp=2", STEPS)):
        assert on(mesh, moved, until) == []
    for found, expected in zip(numbers(moved), numbers(unbroken), strict=True):
        assert found == pytest.approx(expected, rel=1e-2)


FULL = {
    "torch.save": 1,  # a rank's own file
    "torch.distributed.checkpoint.filesystem.FileSystemWriter.finish": 0,  # what says where the tensors are
    "xt_blocks.train.mesh.sync": 0,  # what was saved beside the weights
    "xt_blocks.train.mesh._emptied": 0,  # the folder
}


def test_a_disk_that_is_full_on_one_rank_stops_all_with_the_checkpoint_before(tmp_path: Path) -> None:
    unbroken, begun = created(tmp_path / "unbroken"), created(tmp_path / "begun")
    assert on("fsdp=2", unbroken, STEPS) == []
    assert on("fsdp=2", begun, 4) == []
    for number, (broken, rank) in enumerate(FULL.items()):
        path = tmp_path / str(number)
        shutil.copytree(begun, path)
        told = on("fsdp=2", path, STEPS, broken, rank)
        where = f"checkpoint {path}/checkpoints/000006"
        assert told == f"{where} cannot be written: rank {rank}: [Errno 28] No space left on device"
        assert [each.name for each in files.checkpoints_in(path / "checkpoints")] == ["000003", "000004"]
        assert on("fsdp=2", path, STEPS) == []
        assert numbers(path) == numbers(unbroken)
        assert not [*path.glob("checkpoints/*.tmp*")]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-500])


def garbled(file: Path) -> None:
    file.write_bytes(bytes(byte ^ 0x5A for byte in file.read_bytes()))


DAMAGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "no shard": ("__1_0.distcp", Path.unlink, "__1_0.distcp is missing"),
    "a shard that is cut off": ("__1_0.distcp", cut, "__1_0.distcp is cut off: it has "),
    "a shard of other bytes": ("__0_0.distcp", garbled, ""),
    "no metadata": (".metadata", Path.unlink, ".metadata is missing"),
    "metadata that are cut off": (".metadata", cut, ""),
    "no state": ("state.json", Path.unlink, "No such file or directory"),
}


def test_a_damaged_checkpoint_is_named_and_gives_way_to_the_one_before(tmp_path: Path) -> None:
    whole, unbroken = created(tmp_path / "whole"), created(tmp_path / "unbroken")
    assert on("fsdp=2", whole, 6) == []
    assert on("fsdp=2", unbroken, 8) == []
    for number, (case, (file, damage, words)) in enumerate(DAMAGES.items()):
        damaged = tmp_path / "damaged"
        for mesh in ("fsdp=2", "one")[number % 2 :]:  # one process reads each, ranks every other one
            shutil.copytree(whole, damaged)
            damage(damaged / "checkpoints/000006" / file)
            note = on(mesh, damaged, 8)
            assert len(note) == 1, (case, note)
            assert note[0].startswith(f"checkpoint {damaged}/checkpoints/000006 cannot be read: "), (case, note)
            assert words in note[0], (case, note)
            assert note[0].endswith("; 000003, the one before, is used"), (case, note)
            assert_close(numbers(damaged), numbers(unbroken))
            shutil.rmtree(damaged)


def test_where_all_are_damaged_each_is_named(tmp_path: Path) -> None:
    path = created(tmp_path / "run")
    assert on("fsdp=2", path, 6) == []
    for checkpoint in (path / "checkpoints").iterdir():
        (checkpoint / "__1_0.distcp").unlink()
    told = on("fsdp=2", path, STEPS)
    assert isinstance(told, str)
    later, earlier, then = told.split("\n  ")
    assert (later.count("000006"), earlier.count("000003")) == (1, 1)
    assert then == "no checkpoint is left: the run has to be started again"


class Ahead(nn.Module):
    """Each token's vector, of the token after it."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.roll(-1, dims=1)


def looks_ahead(mesh: str, pattern: str) -> str:
    shapes: dict[str, Any] = {"shapes": lambda o: {}, "flops": lambda o, sizes: 0, "state": lambda o: {}}
    with suppress(UserError):  # it is registered
        blockdsl.register(blockdsl.Kind(name="ahead", title="a look ahead", options=(), module=Ahead, **shapes))
    own = replace(settings(), pattern=pattern, options={"attn_dim_head": 4})
    with pytest.raises(UserError) as error:
        MeshEngine(compile_graph(own), own, Mesh.parse(mesh))
    return str(error.value)


@pytest.mark.parametrize("mesh", ["fsdp=2", "pp=2", pytest.param("pp=2,tp=2", marks=pytest.mark.distributed)])
def test_a_model_that_sees_what_it_predicts_is_refused(mesh: str) -> None:
    for told in run(looks_ahead, Mesh.parse(mesh).size, mesh, "a f ahead a f"):
        assert told.startswith("this pattern lets a position see the bytes after it")
    for told in run(looks_ahead, Mesh.parse(mesh).size, mesh, "a f a(causal=false) f"):
        assert "sees later ones: a2 (self-attention) is not causal" in told


def refusals(path: Path) -> list[str]:
    told = []
    changes: list[tuple[str, dict[str, Any]]] = [
        ("pp=4", {"pattern": "a f"}),
        ("tp=4", {"pattern": "a*3"}),
        ("fsdp=4", {"batch": 3}),
        ("dp=2,fsdp=2", {"accumulate": 2}),
        ("cp=4", {"seq_len": 10}),
        ("fsdp=2", {}),
    ]
    for mesh, change in changes:
        own = replace(settings(), **change)
        with pytest.raises(UserError) as error:
            MeshEngine(compile_graph(own), own, Mesh.parse(mesh))
        told.append(str(error.value))
    return told


def test_what_ranks_cannot_share_is_said_before_anything_is_written(tmp_path: Path) -> None:
    blocks, heads, rows, pieces, tokens, fewer = run(refusals, 4, tmp_path)[3]
    assert "a pipeline needs a block for each of its 4 stages; the stack has 2 blocks" in blocks
    assert heads == "tp=4: no block splits: a0 and 2 more (heads=2 is not divisible by 4)"
    assert rows == "a batch of 3 rows cannot be cut into 4 pieces: dp × fsdp of fsdp=4 is 4, and accumulate is 1"
    assert "a batch of 4 rows cannot be cut into 8 pieces" in pieces
    assert "rows of 10 tokens cannot be cut into 4 parts alike" in tokens
    assert (
        fewer
        == "the mesh fsdp=2 has 2 ranks, but there are 4 processes; torchrun --nproc-per-node 2 ... starts as many"
    )


def diverged(path: Path) -> str:
    folder = RunFolder.open(path)
    engine = MeshEngine(folder.graph(), folder.settings, Mesh.parse("fsdp=2"))
    trainer, reporter = Trainer(folder, engine, load_data(folder.settings)), Until(STEPS)
    with pytest.raises(NotFinite) as error:
        trainer.train(reporter, reporter.stop)
    engine.close()
    return str(error.value)


def test_a_loss_that_is_no_number_leaves_the_checkpoint_from_before(tmp_path: Path) -> None:
    path = created(tmp_path / "run")
    folder = RunFolder.open(path)
    folder.update(replace(folder.settings, lr=1e38))
    first, second = run(diverged, 2, path)
    assert first == second
    assert "is not finite" in first or "nan" in first or "inf" in first
    assert [each.name for each in files.checkpoints_in(path / "checkpoints")] == ["000000"]
    folder.update(replace(folder.settings, lr=1e-3))
    assert on("one", path, STEPS) == []
