"""What a plan says that a rank holds, against the tensors of real ranks: counted, and at most at once in a step."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import blockdsl
from blockdsl import Mesh
from xt_blocks.distributed.job import distribute
from xt_blocks.distributed.shard import local_part

from ..plan.allocated import Allocated
from .processes import run

MODEL: dict[str, Any] = {
    "dim": 64,
    "heads": 4,
    "attn_dim_head": 16,
    "causal": True,
    "num_tokens": 64,
    "max_seq_len": 16,
    "rotary_pos_emb": True,
}
ROWS, TOKENS = 8, 16
PATTERNS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("(a f)*4", {}),
    "one key head, tied embedding": ("(a f)*2 | (a f)*2", {"attn_one_kv_head": True, "tie_embedding": True}),
    "tied blocks, experts": ("(a f)@s*2 a e(experts=4, inner=32) | a f", {}),
    "scans": ("m(state=8, dim_head=16) f gla(heads=4, dim_head=8) a", {}),
    "computed again": ("(a f)*4", {"checkpoint": "block", "use_rmsnorm": True, "ff_glu": True}),
}
MESHES = ("dp=2", "fsdp=2", "cp=2", "tp=2", "pp=2")
PRODUCTS = ("dp=2,fsdp=2", "fsdp=2,tp=2", "dp=2,tp=2", "pp=2,tp=2", "pp=2,dp=2", "pp=2,fsdp=2", "fsdp=4", "tp=4")


class Held(NamedTuple):
    """Numbers that a rank holds, and the most bytes that a step has beside them."""

    parameters: int
    gradients: int
    adam: int
    peak: int


def held(mesh: str, precision: str) -> dict[str, Held]:
    out = {}
    for name, (text, settings) in PATTERNS.items():
        if name == "scans" and "cp" in mesh:  # refused, as is tested elsewhere
            continue
        job = distribute(blockdsl.compile(text, **MODEL, **settings), mesh, accumulate=2, precision=precision)
        optimizer = torch.optim.AdamW(job.parameters())
        tokens = torch.randint(64, (ROWS, TOKENS + 1), generator=torch.Generator().manual_seed(0))
        job.backward(tokens)
        optimizer.step()
        parameters = [local_part(p) for p in job.parameters()]
        # of a bias that another rank adds there is no gradient
        gradients = [local_part(p.grad if p.grad is not None else p) for p in job.parameters()]
        states = [local_part(t) for state in optimizer.state.values() for t in state.values() if t.ndim]
        states += [local_part(p) for p in job.parameters() if not p.requires_grad] * 2
        with Allocated(
            [*parameters, *gradients, *states, *(b for net in job.nets for b in net.buffers())]
        ) as allocated:
            job.backward(tokens)
        out[name] = Held(numbers(parameters), numbers(gradients), numbers(states), allocated.peak)
    return out


def numbers(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


@pytest.mark.parametrize(
    ("mesh", "precision"),
    [
        *((mesh, "fp32") for mesh in MESHES),
        *(pytest.param(mesh, "fp32", marks=pytest.mark.distributed) for mesh in PRODUCTS),
        *(pytest.param(mesh, "bf16", marks=pytest.mark.distributed) for mesh in ("fsdp=2", "pp=2,fsdp=2", "dp=2")),
    ],
)
def test_what_a_rank_holds(mesh: str, precision: str) -> None:
    sizes = Mesh.parse(mesh)
    found = run(held, sizes.size, mesh, precision)
    for name in found[0]:
        text, settings = PATTERNS[name]
        graph = blockdsl.compile(text, **MODEL, **settings)
        run_as = {"checkpoint": settings.get("checkpoint", "none"), "precision": precision}
        rows = ROWS // sizes.data // 2
        (best,) = graph.plan(mesh, seq_len=TOKENS, batch=ROWS, micro_batch=rows, **run_as).meshes
        for rank, real in enumerate(found):
            share, own = best.shares[sizes.place(rank)["pp"]], real[name]
            kept = share.parameter_bytes, share.gradient_bytes, share.optimizer_bytes
            assert kept == (4 * own.parameters, 4 * own.gradients, 4 * own.adam), (name, rank)
            beside = share.memory(best.checkpoint) - sum(kept)
            assert 0.65 * own.peak < beside < 1.5 * own.peak, (name, rank)
