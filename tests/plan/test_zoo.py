"""What a plan says that a rank keeps of a published model, against the model itself: made on the meta device, where
tensors have shapes and no memory, and counted by element."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from blockdsl import Mesh, zoo
from xt_blocks.distributed.ranks import Ranks
from xt_blocks.distributed.shard import local_part, sharded
from xt_blocks.generation.lower import lower
from xt_blocks.runtime.stack import Stack
from xt_blocks.train.optimizer import make_optimizer, optimizers_of

from ..thorough import part_of

STATES = {"Muon": 1, "AdamW": 2}
"""Numbers that torch's optimisers keep of each number they move."""
ENDS = [
    f"{name}-{size}"
    for name, family in zoo.FAMILIES.items()
    for size in (*family.sizes,)[:: max(1, len(family.sizes) - 1)]
]


@contextmanager
def rank_of(mesh: str, rank: int) -> Iterator[Ranks]:
    """A rank of a mesh that sends nothing, and needs no other."""
    sizes = Mesh.parse(mesh)
    dist.init_process_group("fake", rank=rank, world_size=sizes.size, store=FakeStore())
    try:
        yield Ranks(sizes)
    finally:
        dist.destroy_process_group()


def made(name: str, ranks: Ranks | None = None) -> nn.Module:
    """The model, or what a rank has of it."""
    with torch.device("meta"):
        net = lower(zoo.entry(name).graph())
    if ranks is not None:
        for stack in [module for module in net.modules() if isinstance(module, Stack)]:
            for block in stack.blocks.values():
                sharded(block, ranks)
        sharded(net, ranks)
    return net


def counts(net: nn.Module) -> tuple[int, int, int]:
    """Bytes of parameters, of what AdamW keeps, and of what Muon and AdamW keep."""
    held = {
        name: sum(
            STATES[type(each).__name__] * local_part(parameter).numel()
            for each in optimizers_of(make_optimizer(net, 0.1, name))
            for group in each.param_groups
            for parameter in group["params"]
        )
        for name in ("adamw", "muon")
    }
    return 4 * sum(local_part(p).numel() for p in net.parameters()), 4 * held["adamw"], 4 * held["muon"]


def planned(name: str, mesh: str) -> tuple[int, int, int]:
    graph, run = zoo.entry(name).graph(), {"seq_len": 16, "batch": 4}
    (adamw,), (muon,) = (graph.plan(mesh, optimizer=each, **run).best.shares for each in ("adamw", "muon"))
    assert adamw.gradient_bytes == adamw.parameter_bytes == muon.parameter_bytes
    return adamw.parameter_bytes, adamw.optimizer_bytes, muon.optimizer_bytes


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has it from 2.9 on")
@pytest.mark.parametrize("name", part_of(dict.fromkeys(ENDS), 40))
def test_what_is_kept_of_a_published_model(name: str) -> None:
    """On one device to the byte. Of four the first has more than a plan's fourth, where rows are no multiple of four: of
    a model with many small matrices up to 2%."""
    assert planned(name, "dp=1") == counts(made(name))
    of_four = planned(name, "fsdp=4")
    with rank_of("fsdp=4", 0) as ranks:
        for plan, held in zip(of_four, counts(made(name, ranks)), strict=True):
            assert plan - 8 <= held <= 1.02 * plan
