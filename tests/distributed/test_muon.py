"""Muon over ranks moves whole matrices, as torch.optim.Muon does on one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import blockdsl
from blockdsl.plan.mesh import Mesh
from xt_blocks import AutoregressiveWrapper
from xt_blocks.distributed.init import initialised
from xt_blocks.distributed.job import distribute
from xt_blocks.distributed.muon import SharedMuon

from .processes import run
from .random_models import gathered, in_float64

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has it from 2.9 on")

TEXT = "(a(kv_heads=1) f(glu))@s*2 | a f(inner=21)"
MODEL: dict[str, Any] = {"dim": 16, "heads": 2, "attn_dim_head": 8, "causal": True, "num_tokens": 32, "max_seq_len": 12}
OPTIONS: dict[str, Any] = {"weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
STEPS = 3


def batch(step: int) -> Tensor:
    return torch.randint(32, (4, 9), generator=torch.Generator().manual_seed(step))


def in_blocks(named: Any) -> list[nn.Parameter]:
    return [parameter for name, parameter in named if "blocks" in name and parameter.ndim == 2]


def of_a_rank(mesh: str, path: Path) -> dict[str, Tensor]:
    """Weights and momentum after some steps, on the way of which a checkpoint is written and read."""
    with in_float64():
        graph = blockdsl.compile(TEXT, **MODEL)
        job = distribute(graph, mesh, seed=3)
        muon = SharedMuon(job, in_blocks(job.named_parameters()), lr=0.02, **OPTIONS)
        for step in range(STEPS):
            if step == 1:
                job.save(path, muon)
                job = distribute(graph, mesh, seed=4)
                muon = SharedMuon(job, in_blocks(job.named_parameters()), lr=0.02, **OPTIONS)
                job.load(path, muon)
            job.backward(batch(step))
            muon.step()
            for parameter in job.parameters():
                parameter.grad = None
        return gathered(job, muon)


def of_one_process() -> dict[str, Tensor]:
    """By torch's own, of whole matrices."""
    with in_float64():
        net = initialised(blockdsl.compile(TEXT, **MODEL), 3)
        names = {parameter: name for name, parameter in net.named_parameters()}
        muon = torch.optim.Muon(in_blocks(net.named_parameters()), lr=0.02, **OPTIONS)
        for step in range(STEPS):
            net.zero_grad()
            AutoregressiveWrapper(net)(batch(step)).backward()
            muon.step()
    weights = {f"model.{name}": tensor for name, tensor in net.state_dict().items()}
    return weights | {
        f"optimizer.{names[p]}.{key}": value for p, state in muon.state.items() for key, value in state.items()
    }


@pytest.mark.parametrize(
    "mesh",
    [
        "fsdp=2",
        "tp=2",
        *(
            pytest.param(mesh, marks=pytest.mark.distributed)
            for mesh in ("dp=2", "cp=2", "pp=2", "dp=2,fsdp=2", "fsdp=2,tp=2", "pp=2,tp=2")
        ),
    ],
)
def test_muon_on_ranks_is_that_of_one_process(mesh: str, tmp_path: Path) -> None:
    expected = of_one_process()
    for found in run(of_a_rank, Mesh.parse(mesh).size, mesh, tmp_path / "saved"):
        assert found.keys() == expected.keys()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
