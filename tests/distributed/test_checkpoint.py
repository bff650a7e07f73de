"""What one mesh writes another reads: weights and optimiser to the bit, and the run goes on as if it had not changed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import xt_blocks
from blockdsl.plan.mesh import Mesh
from xt_blocks.distributed.checkpoint import STATE, WEIGHT
from xt_blocks.runtime import weights
from xt_blocks.train import TrainSettings, build_model, compile_graph, export
from xt_blocks.train.checkpoint import at, states_by_name
from xt_blocks.train.engine import LocalEngine
from xt_blocks.train.mesh import MeshEngine

from .processes import run
from .random_models import gathered


def settings() -> TrainSettings:
    return TrainSettings(
        pattern="^u (a f)@s*2 | a(kv_heads=1) f(glu) <u(gain)",
        text=None,
        text_digest="",
        dim=18,
        heads=2,
        seq_len=8,
        batch=4,
        steps=10,
        minutes=None,
        lr=1e-2,
        seed=1,
        device="cpu",
        threads=1,
        options={"attn_dim_head": 4, "tie_embedding": True, "rotary_pos_emb": True},
    )


def batch(step: int) -> Tensor:
    return torch.randint(256, (4, 9), generator=torch.Generator().manual_seed(step))


def engine_of(mesh: str) -> LocalEngine | MeshEngine:
    graph = compile_graph(settings())
    if mesh == "one":
        return LocalEngine(build_model(graph, 1), settings())
    return MeshEngine(graph, settings(), Mesh.parse(mesh))


def trained(mesh: str, source: Path | None, target: Path | None, first: int, steps: int) -> dict[str, Any]:
    """From a checkpoint or the start: what was read, losses of the steps, and a checkpoint of what they left."""
    engine = engine_of(mesh)
    read = engine.load(source) if source is not None else None
    held = state_of(engine)
    losses = [engine.step(batch(step), step, 1e-2).loss for step in range(first, first + steps)]
    left = state_of(engine)
    if target is not None:
        engine.save(target, first + steps, {"seconds": 1.0})
        engine.export(at(target, first + steps), target)
    engine.close()
    return {"losses": losses, "held": held, "left": left, "step": None if read is None else read.state["step"]}


def state_of(engine: LocalEngine | MeshEngine) -> dict[str, Tensor]:
    """Whole weights, and what Adam keeps of them, by name."""
    if isinstance(engine, LocalEngine):
        kept = {STATE + name: value.clone() for name, value in states_by_name(engine.optimizer.state_dict()).items()}
        return {WEIGHT + name: p.detach().clone() for name, p in engine.model.named_parameters()} | kept
    return gathered(engine.job, *engine.each)


def on(mesh: str, *arguments: Any) -> dict[str, Any]:
    if mesh == "one":
        return trained(mesh, *arguments)
    first, *others = run(trained, Mesh.parse(mesh).size, mesh, *arguments)
    assert all(other["losses"] == first["losses"] for other in others)
    return first


@pytest.fixture(scope="module")
def unbroken() -> list[float]:
    """Losses of one process."""
    return list(on("one", None, None, 0, 3)["losses"])


MESHES = "one", "fsdp=2", "fsdp=3", "fsdp=4", "tp=2", "pp=2"
READ_BY = {"one": ("fsdp=3", "tp=2"), "fsdp=2": ("fsdp=2", "one"), "tp=2": ("pp=2", "fsdp=4"), "pp=2": ("one", "tp=2")}
"""What a run tries: each mesh writes, and each reads what another has written."""


@pytest.mark.parametrize(
    ("writes", "readers"),
    [
        *READ_BY.items(),
        *(pytest.param(mesh, MESHES, marks=pytest.mark.distributed) for mesh in (*READ_BY, "fsdp=4")),
    ],
)
def test_every_mesh_reads_what_each_writes(
    writes: str, readers: tuple[str, ...], tmp_path: Path, unbroken: list[float]
) -> None:
    (tmp_path / "graph.json").write_text(compile_graph(settings()).to_json())
    wrote = on(writes, None, tmp_path, 0, 2)
    assert wrote["losses"] == pytest.approx(unbroken[:2], abs=1e-6)
    assert any(name.endswith("exp_avg_sq") for name in wrote["left"])
    for reads in readers:
        read = on(reads, tmp_path, None, 2, 1)
        assert read["step"] == 2
        assert read["held"].keys() == wrote["left"].keys()
        for name, value in read["held"].items():
            assert torch.equal(value, wrote["left"][name]), (reads, name)
        assert read["losses"] == pytest.approx(unbroken[2:], abs=1e-6)
    exported = xt_blocks.from_pretrained(tmp_path)
    for name, parameter in exported.named_parameters():
        assert torch.equal(parameter, wrote["left"][WEIGHT + name]), name


def exported_in_parts(source: Path, folder: Path) -> None:
    """Files of at most 2 kB, by turns of the ranks."""
    export.shards = partial(weights.shards, max_shard_bytes=2000)
    try:
        engine_of("fsdp=2").export(source, folder)
    finally:
        export.shards = weights.shards


def test_ranks_write_the_files_of_an_export_by_turns(tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(compile_graph(settings()).to_json())
    wrote = on("pp=2", None, tmp_path, 0, 1)["held"]
    whole = {name: tensor.clone() for name, tensor in xt_blocks.from_pretrained(tmp_path).state_dict().items()}
    assert not torch.equal(whole["token_emb.weight"], wrote[WEIGHT + "token_emb.weight"])  # a step later
    run(exported_in_parts, 2, at(tmp_path, 1), tmp_path)
    files = sorted(path.name for path in tmp_path.glob("model*"))
    assert len(files) > 5
    assert files[-1] == "model.safetensors.index.json"
    back = xt_blocks.from_pretrained(tmp_path).state_dict()
    assert back.keys() == whole.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in whole.items())


def dropped(mesh: str) -> list[float]:
    """Losses of two steps with dropout."""
    options = {"attn_dim_head": 4, "ff_dropout": 0.3, "layer_dropout": 0.2}
    own = replace(settings(), pattern="(a f)*2", options=options)
    graph = compile_graph(own)
    engine = LocalEngine(build_model(graph, 1), own) if mesh == "one" else MeshEngine(graph, own, Mesh.parse(mesh))
    losses = [engine.step(batch(step), step, 1e-2).loss for step in range(2)]
    engine.close()
    return [*losses, float(torch.rand(()))]


def test_dropout_draws_anew_for_each_share_and_stage_and_alike_along_tp() -> None:
    one = dropped("one")
    for of_rank in run(dropped, 2, "tp=2"):
        assert of_rank == pytest.approx(one, abs=1e-6)
    for mesh in ("fsdp=2", "pp=2"):
        first, second = run(dropped, 2, mesh)
        assert first[:2] == second[:2]
        assert first[2] != second[2]
