"""Random models in training over ranks, held against one process in plain torch, in float64.

Owns what a rank does and what is expected of it; drawing is `tests.properties.models`'s.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from hypothesis import strategies as st
from torch import Tensor, nn

import blockdsl
from blockdsl import BlockGraph, UserError
from xt_blocks import AutoregressiveWrapper, auxiliary_losses
from xt_blocks.distributed.init import initialised
from xt_blocks.distributed.job import Job, distribute
from xt_blocks.kernels.batch_rows import BatchRows, rows_of_batch
from xt_blocks.runtime.seeds import seed_for

from ..properties.models import KINDS, SIZES, TOKENS, Model, models

ROWS, SEQ, STEPS, RATE, CLIP = 8, 8, 2, 0.1, 0.5


@dataclass(frozen=True)
class Run:
    """A model, and how it trains over ranks.

    Attributes:
        given: what the drawn model says, settings of the stack and around it.
        mesh: as its text.
        masked: rows are of different lengths.
    """

    text: str
    given: dict[str, Any]
    mesh: str
    masked: bool
    accumulate: int = 1
    schedule: str = "1f1b"
    seed: int = 0

    @property
    def graph(self) -> BlockGraph:
        return blockdsl.compile(self.text, **self.given)

    def batches(self) -> list[tuple[Tensor, Tensor | None]]:
        drawn = torch.Generator().manual_seed(self.seed)
        count, lengths = self.given["num_tokens"], torch.tensor([SEQ + 1, 4, SEQ, 2, 7, 3, 5, SEQ + 1])
        mask = torch.arange(SEQ + 1) < lengths[:, None] if self.masked else None
        return [(torch.randint(count, (ROWS, SEQ + 1), generator=drawn), mask) for _ in range(STEPS)]

    def noise(self, name: str, shape: torch.Size) -> Tensor:
        """What is added to a parameter, so that none is a one or a zero that hides what it does."""
        drawn = torch.Generator().manual_seed(sum(map(ord, name)) + self.seed)
        return 0.1 * torch.randn(shape, generator=drawn, dtype=torch.float64)


@dataclass
class Trained:
    """What training gives.

    Attributes:
        losses: of each step with what blocks add, and of the first batch in evaluation at the end.
        norms: of each step's gradients.
        weights: after it, whole; of the first rank alone.
        tokens: generated; None where this is refused.
    """

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    tokens: Tensor | None = None


@st.composite
def runs(draw: st.DrawFn, meshes: tuple[str, ...]) -> Run:
    """A causal language model on one of these meshes.

    The balance of experts is that of a micro-batch, so where there are several, there is none.
    """
    drawn: Model = draw(models(kinds=[kind for kind in KINDS if kind != "c"], causal=True))
    drawn = drawn.without("return_only_embed", "logits_dim")
    given, text = SIZES | TOKENS | drawn.settings | drawn.around, drawn.text
    if draw(st.booleans()):
        given |= {"heads": 4, "dim": 32}
    mesh = draw(st.sampled_from(meshes))
    schedules = ("1f1b", "gpipe", "interleaved", "zero-bubble") if "pp" in mesh else ("1f1b",)
    masked, accumulate = draw(st.booleans()), draw(st.sampled_from((1, 2)))
    if accumulate > 1 or "pp" in mesh:
        text = re.sub(r"balance_loss=[\d.]+", "balance_loss=0", text)
        given |= {"moe_balance_loss": 0.0} if "e" in drawn.kinds else {}
    return Run(text, given, mesh, masked, accumulate, draw(st.sampled_from(schedules)), drawn.seed)


@contextmanager
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def of_ranks(run: Run, twice: bool = False) -> list[Trained | str]:
    """On a rank: what training gives, once or twice; or why it is refused."""
    with in_float64():
        return [_of_ranks(run) for _ in range(1 + twice)]


def _of_ranks(run: Run) -> Trained | str:
    try:
        job = distribute(run.graph, run.mesh, seed=run.seed, accumulate=run.accumulate, schedule=run.schedule)
    except UserError as error:
        return str(error)
    for name, piece in job.contents().items():
        for each in piece.rectangles:
            if each.part.is_floating_point():
                each.part.add_(each.of(run.noise(name, piece.shape)))
    optimizer, out = torch.optim.SGD(job.parameters(), lr=RATE), Trained()
    for step, (tokens, mask) in enumerate(run.batches()):
        job.seed(step)
        found = job.backward(tokens, mask)
        out.losses.append(found.cross_entropy + sum(found.added.values()))
        out.norms.append(job.clip(CLIP))
        optimizer.step()
        optimizer.zero_grad()
    out.losses.append(job.loss(*run.batches()[0]).cross_entropy)
    out.weights = gathered(job)
    if job.pipeline is None:
        out.tokens = job.generate(run.batches()[0][0][:2, :3], 4, temperature=0.0)
    if dist.get_rank():
        out.weights = {}
    return out


def gathered(job: Job, *optimizers: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The whole tensors of a checkpoint, put together from what every rank says that it holds."""
    mine = {
        name: (piece.shape, [(r.offset, r.part) for r in piece.rectangles])
        for name, piece in job.contents(*optimizers).items()
    }
    every: list[Any] = [None] * job.mesh.size
    dist.all_gather_object(every, mine)
    out: dict[str, Tensor] = {}
    for held in every:
        for name, (shape, parts) in held.items():
            for offset, part in parts:
                missing = math.nan if part.is_floating_point() else 0
                tensor = out.setdefault(name, torch.full(shape, missing, dtype=part.dtype))
                tensor[tuple(slice(at, at + size) for at, size in zip(offset, part.shape, strict=True))] = part
    return out


def of_one_process(run: Run) -> Trained:
    """The same without any of the distributed code but the initial weights; all rows at once."""
    with in_float64():
        net: Any = initialised(run.graph, run.seed)
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(run.noise(f"model.{name}", tensor.shape))
        wrapper, out = AutoregressiveWrapper(net).train(), Trained()
        optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
        for step, (tokens, mask) in enumerate(run.batches()):
            with rows_of_batch(BatchRows([*range(ROWS)], seed_for("dropout", step))):
                loss = wrapper(tokens, mask=mask)
            loss.backward()
            out.losses.append(loss.item())
            out.norms.append(float(nn.utils.clip_grad_norm_(net.parameters(), CLIP)))
            optimizer.step()
            optimizer.zero_grad()
        wrapper.eval()
        tokens, mask = run.batches()[0]
        with auxiliary_losses() as further, torch.no_grad():
            out.losses.append(wrapper(tokens, mask=mask).item() - (further.total() if further.by_name() else 0))
        out.weights = {f"model.{name}": tensor for name, tensor in net.state_dict().items()}
        out.tokens = wrapper.generate(tokens[:2, :3], 4, temperature=0.0)
    return out
