"""`distribute(graph, mesh)`: one rank's part of a language model that trains over many.

    import torch.distributed as dist
    from xt_blocks import distribute

    dist.init_process_group("gloo")                        # under torchrun
    job = distribute(graph, "fsdp=4", seed=0)
    optimizer = torch.optim.AdamW(job.parameters())
    for tokens in batches:                                 # (batch, seq + 1), the same on every rank
        loss = job.backward(tokens)
        job.clip(1.0)
        optimizer.step()
        optimizer.zero_grad()

Owns how a batch is shared, and that losses and gradients are those of one process: of the mean over all of a batch's
targets, whatever the mesh. Leaves the optimiser to torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from blockdsl.errors import UserError
from blockdsl.plan.mesh import Mesh
from blockdsl.registry.options import whole

from ..generation.autoregressive import AutoregressiveWrapper
from ..models.transformer import TransformerWrapper
from ..runtime.auxiliary import auxiliary_losses
from .init import initialised
from .ranks import Ranks
from .shard import let_go, local_part, sharded

if TYPE_CHECKING:
    from blockdsl import BlockGraph

PRECISIONS = {"float32": None, "bf16": torch.bfloat16}


@dataclass
class Losses:
    """Of a batch: the mean cross-entropy over its targets, in nats, and what blocks added to it by name."""

    cross_entropy: float
    added: dict[str, float] = field(default_factory=dict)


def distribute(graph: BlockGraph, mesh: Mesh | str, **options: Any) -> Job:
    """This rank's part of a causal language model over the ranks of a mesh; see `Job`.

    Args:
        graph: of tokens, as `blockdsl.compile(..., causal=True, num_tokens=256, max_seq_len=128)` gives it.
        mesh: the ranks along each axis, or its text, "dp=2,fsdp=2".

    Raises:
        UserError: the process group has another number of ranks, or the model cannot be split so; the message says why.
    """
    return Job(graph, Mesh.parse(mesh) if isinstance(mesh, str) else mesh, **options)


class Job:
    """One rank's part of a model.

    Args:
        graph: the whole model's.
        mesh: the ranks along each axis.
        seed: of the initial weights, which are the same bits on every mesh.
        device: of this rank.
        precision: "float32", or "bf16": blocks compute in bfloat16, with parameters and sums of gradients in float32.
        compile: blocks run compiled.
        accumulate: micro-batches that a batch is cut into on each rank.

    Attributes:
        ranks: the mesh, and this rank's place in it.
        wrapper: computes the loss of some rows.
    """

    def __init__(
        self,
        graph: BlockGraph,
        mesh: Mesh,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        precision: str = "float32",
        compile: bool = False,
        accumulate: int = 1,
    ) -> None:
        if precision not in PRECISIONS:
            raise UserError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
        self.graph, self.mesh, self.accumulate = graph, mesh, whole("accumulate", accumulate, 1)
        self.ranks = Ranks(mesh, device)
        dtype = PRECISIONS[precision]

        def place(node: str, block: nn.Module) -> nn.Module:
            block = block.to(self.ranks.device)
            if compile:
                block.compile()
            return sharded(block, self.ranks, dtype)

        net = initialised(graph, seed, place)
        if not isinstance(net, TransformerWrapper):
            raise UserError("a job trains a language model, and this graph embeds no tokens: give num_tokens")
        self.wrapper = AutoregressiveWrapper(net.to(self.ranks.device))
        sharded(self.wrapper, self.ranks, dtype)

    @property
    def net(self) -> TransformerWrapper:
        """The model, whose parameters are this rank's parts of them."""
        return self.wrapper.net

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """This rank's parameters, by the names of one process."""
        return self.net.named_parameters()

    def parameters(self) -> Iterator[nn.Parameter]:
        """This rank's parameters, for an optimiser."""
        return (parameter for _, parameter in self.named_parameters())

    def backward(self, tokens: Tensor, mask: Tensor | None = None) -> Losses:
        """Add the gradients of a batch's mean loss.

        Args:
            tokens: (batch, seq + 1) int, the whole batch, the same on every rank.
            mask: (batch, seq + 1) bool, True = a real token.
        """
        self.wrapper.train()
        return self._passes(tokens, mask, gradients=True)

    def loss(self, tokens: Tensor, mask: Tensor | None = None) -> Losses:
        """A batch's mean loss, without gradients and in evaluation mode."""
        self.wrapper.eval()
        with torch.no_grad():
            losses = self._passes(tokens, mask, gradients=False)
        let_go(self.wrapper)
        return losses

    def _passes(self, tokens: Tensor, mask: Tensor | None, gradients: bool) -> Losses:
        counts = targets_in(tokens, mask)
        total, rows = int(counts.sum()), self.ranks.rows(len(tokens))
        if total == 0:
            raise ValueError("no token of the batch is a target: it is all padding")
        found: dict[str, float] = {"": 0.0}
        pieces = torch.arange(rows.start, rows.stop, device="cpu", dtype=torch.int64).tensor_split(
            self.accumulate if gradients else 1
        )
        for piece in pieces:
            if len(piece) == 0:
                raise UserError(
                    f"{rows.stop - rows.start} rows a rank cannot be cut into {self.accumulate} micro-batches"
                )
            share, weight = len(piece) / len(tokens), int(counts[piece].sum()) / total
            some = None if mask is None else mask[piece].to(self.ranks.device)
            with auxiliary_losses() as further:
                loss = self.wrapper(tokens[piece].to(self.ranks.device), mask=some)
            added = further.by_name()
            cross_entropy = loss - sum(added.values()) if added else loss
            scaled = cross_entropy * weight if weight else cross_entropy.detach() * 0.0
            for name, value in added.items():
                scaled = scaled + value * share
                found[name] = found.get(name, 0.0) + value.item() * share
            found[""] += cross_entropy.item() * weight if weight else 0.0
            if gradients:
                # FSDP takes the mean over the data ranks, and a batch's loss is a sum of shares
                torch.autograd.backward(scaled * self.mesh.data)
        names = sorted(found)
        values = self.ranks.sums([found[name] if self.ranks.once(("cp", "tp")) else 0.0 for name in names])
        sums = dict(zip(names, values, strict=True))
        return Losses(sums.pop(""), sums)

    def clip(self, max_norm: float) -> float:
        """Scale all gradients so that their norm over the whole model is at most this; returns what it was."""
        here = 0.0
        for parameter in self.parameters():
            if parameter.grad is not None and self.ranks.once(("dp", "cp", "tp")):
                here += float(local_part(parameter.grad).double().square().sum())
        (total,) = self.ranks.sums([here])
        norm = float(total**0.5)
        if norm > max_norm:
            for parameter in self.parameters():
                if parameter.grad is not None:
                    local_part(parameter.grad).mul_(max_norm / (norm + 1e-6))
        return norm


def targets_in(tokens: Tensor, mask: Tensor | None, ignore_index: int = -100) -> Tensor:
    """(batch,) how many tokens of each row are predicted."""
    counted = tokens[:, 1:] != ignore_index
    if mask is not None:
        counted = counted & mask[:, 1:] & mask[:, :-1]
    return counted.sum(dim=1)
