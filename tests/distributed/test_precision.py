"""A job in bfloat16: FSDP gathers in it, keeps and sums in float32, and loses no more than autocast on one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import blockdsl
from blockdsl.plan.mesh import Mesh
from xt_blocks import AutoregressiveWrapper
from xt_blocks.distributed.init import initialised
from xt_blocks.distributed.job import distribute
from xt_blocks.distributed.shard import local_part

from .processes import run
from .test_job import CASES, MODEL, batches

NAMES = ("plain", "tied", "wired", "recomputed")
ROUNDING = 2**-7
"""The distance of two numbers of bfloat16, over them."""


def trained(name: str, mesh: str) -> list[float]:
    """Losses of three steps of SGD with their gradients' norms, and the first batch's loss after them."""
    job = distribute(graph(name), mesh, seed=3, precision="bf16")
    optimizer, out = torch.optim.SGD(job.parameters(), lr=0.1), []
    for tokens, mask in batches(masked=True):
        out += [job.backward(tokens, mask).cross_entropy, job.clip(0.7)]
        assert {local_part(p).dtype for p in job.parameters()} == {torch.float32}
        assert {local_part(p.grad).dtype for p in job.parameters() if p.grad is not None} == {torch.float32}
        optimizer.step()
        optimizer.zero_grad()
    if job.pipeline is None:
        assert job.generate(torch.tensor([[1, 2, 3]]), 4, temperature=0.0).shape == (1, 4)
    return [*out, job.loss(*batches(masked=True)[0]).cross_entropy]


def twice(mesh: str) -> dict[str, list[list[float]]]:
    names = [name for name in NAMES if name != "recomputed" or "cp" not in mesh]
    return {name: [trained(name, mesh) for _ in range(2)] for name in names}


def of_one_process(name: str, dtype: torch.dtype) -> list[float]:
    """The same in plain torch; bfloat16 is autocast's."""
    net = initialised(graph(name), 3)
    wrapper, optimizer, out = AutoregressiveWrapper(net), torch.optim.SGD(net.parameters(), lr=0.1), []
    for tokens, mask in [*batches(masked=True), batches(masked=True)[0]]:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = wrapper(tokens, mask=mask)
        loss.backward()
        out += [loss.item(), nn.utils.clip_grad_norm_(net.parameters(), 0.7).item()]
        optimizer.step()
        optimizer.zero_grad()
    return out[:-1]


def compiled(mesh: str) -> list[list[float]]:
    """Losses and norms of two steps with everything that a step can do at once, compiled and not."""
    out = []
    for compile in (True, False):
        given = blockdsl.compile("(a f)*2", **MODEL, checkpoint="block", rotary_pos_emb=True)
        job = distribute(given, mesh, seed=3, precision="bf16", compile=compile, accumulate=2)
        optimizer, found = torch.optim.SGD(job.parameters(), lr=0.1), []
        for tokens, _ in batches(masked=False)[:2]:
            found += [job.backward(tokens).cross_entropy, job.clip(0.7)]
            optimizer.step()
            optimizer.zero_grad()
        out.append(found)
    return out


@pytest.mark.distributed
@pytest.mark.parametrize("mesh", ["dp=1", "fsdp=2", "cp=2", "tp=2"])
def test_compiled_recomputed_and_in_parts_at_once(mesh: str) -> None:
    """It takes minutes, as torch compiles C++ for a CPU; code that joins operations rounds fewer numbers."""
    for found, plain in run(compiled, Mesh.parse(mesh).size, mesh):
        assert off(found, plain) <= 2 * ROUNDING


def graph(name: str) -> Any:
    pattern, settings = CASES[name]
    return blockdsl.compile(pattern, **MODEL, **settings)


def off(numbers: list[float], exact: list[float]) -> float:
    """The largest difference, over the exact number."""
    return max(abs(own - other) / other for own, other in zip(numbers, exact, strict=True))


@pytest.mark.parametrize(
    "mesh",
    [
        "fsdp=2",
        *(
            pytest.param(mesh, marks=pytest.mark.distributed)
            for mesh in ("dp=2", "cp=2", "dp=2,fsdp=2", "fsdp=2,tp=2", "pp=2,fsdp=2", "tp=2", "pp=2")
        ),
    ],
)
def test_no_more_is_lost_than_on_one_process(mesh: str) -> None:
    """What autocast itself is off says how much bfloat16 loses on the way: three times that, and a last digit."""
    for found in run(twice, Mesh.parse(mesh).size, mesh):
        for name, (first, second) in found.items():
            assert first == second, name
            exact = of_one_process(name, torch.float32)
            assert off(first, exact) <= 3 * off(of_one_process(name, torch.bfloat16), exact) + ROUNDING, name
