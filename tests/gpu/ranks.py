"""Training over all devices that there are, a process each, against one process; one device is a world of one.

GPUs speak by NCCL. On a CPU there are two processes, which speak by gloo.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import blockdsl
from blockdsl import BlockGraph
from blockdsl.plan.mesh import AXES, Mesh
from xt_blocks import AutoregressiveWrapper
from xt_blocks.distributed.init import initialised
from xt_blocks.distributed.job import distribute

from ..benchmarks.case import Options
from ..distributed.processes import run
from .check import Check

MOST = 8
"""Ranks of a mesh, as many as the model has heads and blocks along an axis."""
STEPS, ROWS, TOKENS, RATE, CLIP = 3, 16, 64, 0.1, 0.7
LEAST = {"fp32": 1e-9, "bf16": 2e-2}
"""What losses and norms may be off: sums in another order in float64; and of bfloat16, a few of its last digits."""


@dataclass
class Trained:
    """Losses and the gradients' norms of some steps."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)

    def off(self, exact: Trained) -> float:
        """The largest difference, over the exact number."""
        pairs = zip((*self.losses, *self.norms), (*exact.losses, *exact.norms), strict=True)
        return max(abs(own - other) / abs(other) for own, other in pairs)


def checks() -> list[Check]:
    return [Check(f"ranks/{axis}", partial(along, axis), 240) for axis in AXES]


def along(axis: str, options: Options) -> dict[str, float]:
    """Losses and norms on all meshes that have this axis: by mesh, the larger part of what they may be off."""
    device = torch.device(options.device)
    on_gpus = device.type == "cuda"
    there = torch.cuda.device_count() if on_gpus and device.index is None else 1 if on_gpus else 2
    ranks = max(2**n for n in range(4) if 2**n <= min(there, MOST))
    expected = {precision: of_one_process(options.device, precision, options.quick) for precision in LEAST}
    out = {}
    for mesh in meshes(axis, ranks):
        backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
        every = run(of_a_rank, ranks, mesh, options.device, options.quick, backend=backend)
        assert all(found == every[0] for found in every), f"{mesh}: ranks differ"
        parts = {precision: every[0][precision].off(expected[precision]) / LEAST[precision] for precision in LEAST}
        assert max(parts.values()) <= 1, f"{mesh}: as parts of what they may, losses or norms are off by {parts}"
        out[mesh] = max(parts.values())
    return out


def meshes(axis: str, ranks: int) -> list[str]:
    """All ranks along an axis; and from four on, two of them along it and the others along each one after it."""
    after = [*AXES][[*AXES].index(axis) + 1 :] if ranks > 2 else []
    return [f"{axis}={ranks}", *(f"{axis}=2,{other}={ranks // 2}" for other in after)]


def graph(quick: bool) -> BlockGraph:
    heads, repeats = (2, 1) if quick else (MOST, MOST // 2)
    sizes: dict[str, Any] = {"dim": 8 * heads, "heads": heads, "num_tokens": 64, "max_seq_len": TOKENS}
    return blockdsl.compile(f"(a f(glu))*{repeats}", causal=True, rotary_pos_emb=True, attn_dim_head=8, **sizes)


def batch(step: int) -> Tensor:
    return torch.randint(64, (ROWS, TOKENS + 1), generator=torch.Generator().manual_seed(step))


@contextmanager
def numbers(precision: str) -> Iterator[None]:
    """Inside, new tensors are float64, so that all that differs is the order of sums; but where blocks round."""
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if precision == "fp32" else kept)
    try:
        yield
    finally:
        torch.set_default_dtype(kept)


def of_a_rank(mesh: str, device: str, quick: bool) -> dict[str, Trained]:
    """By precision."""
    if device == "cuda":
        device = f"cuda:{dist.get_rank()}"
        torch.cuda.set_device(device)
    out = {}
    for precision in LEAST:
        with numbers(precision):
            micro = max(1, Mesh.parse(mesh).pp)
            job = distribute(graph(quick), mesh, device=device, precision=precision, accumulate=micro)
            optimizer, found = torch.optim.SGD(job.parameters(), lr=RATE), Trained()
            for step in range(STEPS):
                found.losses.append(job.backward(batch(step)).cross_entropy)
                found.norms.append(job.clip(CLIP))
                optimizer.step()
                optimizer.zero_grad()
        out[precision] = found
    return out


def of_one_process(device: str, precision: str, quick: bool) -> Trained:
    """The same in plain torch, but for the initial weights."""
    with numbers(precision):
        net: Any = initialised(graph(quick), 0).to(device)
        wrapper, optimizer, out = AutoregressiveWrapper(net), torch.optim.SGD(net.parameters(), lr=RATE), Trained()
        for step in range(STEPS):
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
                loss = wrapper(batch(step).to(device))
            loss.backward()
            out.losses.append(loss.item())
            out.norms.append(nn.utils.clip_grad_norm_(net.parameters(), CLIP).item())
            optimizer.step()
            optimizer.zero_grad()
    return out
