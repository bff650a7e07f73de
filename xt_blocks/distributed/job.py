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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException

from blockdsl.errors import UserError
from blockdsl.plan.local import node_cuts, tensor_part, tensor_splits
from blockdsl.plan.mesh import Mesh
from blockdsl.registry.options import whole
from blockdsl.registry.split import Split

from ..generation.autoregressive import AutoregressiveWrapper
from ..models.lower import lower_stream, model_around
from ..models.transformer import TransformerWrapper
from ..runtime.auxiliary import auxiliary_losses
from ..runtime.modules import block_module
from ..runtime.stack import Stack
from . import checkpoint
from .init import fill, initialised
from .pieces import Piece
from .ranks import Ranks
from .shard import let_go, local_part, sharded
from .tensor import cuts as cuts_of
from .tensor import sum_gradients, tensor_parallel

if TYPE_CHECKING:
    from blockdsl import BlockGraph, Cut

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


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
        precision: "fp32", or "bf16": products are computed in bfloat16, of parameters that stay float32.
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
        precision: str = "fp32",
        compile: bool = False,
        accumulate: int = 1,
    ) -> None:
        if precision not in PRECISIONS:
            raise UserError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
        self.graph, self.mesh, self.accumulate = graph, mesh, whole("accumulate", accumulate, 1)
        self.ranks = Ranks(mesh, device)
        self.precision = PRECISIONS[precision]
        self.whole_shapes = whole_shapes(graph)

        self.cuts: dict[str, Cut] = {}
        net = self._made(seed, compile)
        if not isinstance(net, TransformerWrapper):
            raise UserError("a job trains a language model, and this graph embeds no tokens: give num_tokens")
        self.wrapper = AutoregressiveWrapper(net.to(self.ranks.device))
        sharded(self.wrapper, self.ranks)

    def _made(self, seed: int, compile: bool) -> nn.Module:
        """The model, with this rank's share of each block and of what is around them."""
        ranks, rank = self.mesh.tp, self.ranks.place["tp"]
        local, splits = tensor_part(self.graph, ranks), tensor_splits(self.graph, ranks)

        def share(node: str, block: nn.Module) -> nn.Module:
            if ranks > 1 and isinstance(split := splits[node], Split):
                whole, block = block, block_module(local, node)
                cuts = node_cuts(self.graph, node, split, ranks)
                fill(block, whole, {f"layer.{name}": cut for name, cut in cuts.items()}, ranks, rank)
            return block

        net = initialised(self.graph, seed, share)
        if ranks > 1:
            whole, net = net, model_around(Stack(local.stack_alone(), _blocks(net)), local)
            self.cuts = cuts_of(net, self.graph, ranks)
            fill(net, whole, self.cuts, ranks, rank)
            tensor_parallel(net, self.graph, self.ranks.group("tp"))
        for block in _blocks(net).values():
            block.to(self.ranks.device)
            if compile:
                block.compile()
            sharded(block, self.ranks)
        return net

    @property
    def nets(self) -> list[TransformerWrapper]:
        """The models that this rank has, each with some of the graph's blocks, and its share of their parameters."""
        return [self.wrapper.net]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """This rank's parameters, by the names of one process."""
        return (named for net in self.nets for named in net.named_parameters())

    def parameters(self) -> Iterator[nn.Parameter]:
        """This rank's parameters, for an optimiser."""
        return (parameter for _, parameter in self.named_parameters())

    def backward(self, tokens: Tensor, mask: Tensor | None = None) -> Losses:
        """Add the gradients of a batch's mean loss.

        Args:
            tokens: (batch, seq + 1) int, the whole batch, the same on every rank.
            mask: (batch, seq + 1) bool, True = a real token.
        """
        if len(tokens) < (least := self.mesh.data * self.accumulate):
            pieces = f"dp × fsdp of {self.mesh} is {self.mesh.data}, and accumulate is {self.accumulate}"
            raise UserError(f"a batch of {len(tokens)} rows cannot be cut into {least} pieces: {pieces}")
        self.wrapper.train()
        losses = self._passes(tokens, mask, gradients=True)
        if self.mesh.tp > 1:
            sum_gradients(self.wrapper.net, self.cuts, self.ranks.group("tp"))
        return losses

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
            with auxiliary_losses() as further, self._autocast():
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

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.ranks.device.type, self.precision, enabled=self.precision is not None)

    def contents(self, *optimizers: torch.optim.Optimizer) -> dict[str, Piece]:
        """What a checkpoint has of this rank's part, under the names of one process."""
        return checkpoint.contents(self.nets, optimizers, self._piece)

    def make_room(self, stored: Mapping[str, torch.Size], *optimizers: torch.optim.Optimizer) -> None:
        """Give optimisers the state that a checkpoint with these names has, of zeros, for reading to fill."""
        checkpoint.make_room(self.nets, optimizers, stored, self.whole_shapes)

    def _piece(self, name: str, tensor: Tensor) -> Piece:
        return Piece.of(tensor, self.whole_shapes[name], self.cuts.get(name), self.mesh.tp, self.ranks.place["tp"])

    def save(self, folder: str | PathLike[str], *optimizers: torch.optim.Optimizer) -> None:
        """Write a checkpoint that any mesh reads, into a folder that is new or empty; every rank calls this.

        Raises:
            UserError: a rank could not write, as on a full disk.
        """
        path = Path(folder)
        if self.ranks.main:
            path.mkdir(parents=True, exist_ok=True)
        dist.barrier()
        try:
            checkpoint.write(path, self.contents(*optimizers))
        except CheckpointException as error:
            raise UserError(f"{path} cannot be written: {checkpoint.reasons(error)}") from error

    def load(self, folder: str | PathLike[str], *optimizers: torch.optim.Optimizer) -> None:
        """Read what `save` wrote, on this mesh or another; every rank calls this.

        Raises:
            UserError: it is damaged, lacks a file, or is of another model; the job then holds some of it.
        """
        try:
            self.make_room(checkpoint.shapes(Path(folder)), *optimizers)
            checkpoint.read(Path(folder), self.contents(*optimizers))
        except (CheckpointException, OSError, KeyError, ValueError) as error:
            raise UserError(f"{folder} cannot be read: {checkpoint.reasons(error)}") from error

    def clip(self, max_norm: float) -> float:
        """Scale all gradients so that their norm over the whole model is at most this; returns what it was."""
        here = 0.0
        if self.ranks.once(("dp", "cp")):
            for name, parameter in self.named_parameters():
                if parameter.grad is not None:
                    parts = self._piece(name, parameter.grad).rectangles
                    here += sum(float(each.part.double().square().sum()) for each in parts if each.first)
        (total,) = self.ranks.sums([here])
        norm = float(total**0.5)
        if norm > max_norm:
            for parameter in self.parameters():
                if parameter.grad is not None:
                    local_part(parameter.grad).mul_(max_norm / (norm + 1e-6))
        return norm


def _blocks(net: Any) -> dict[str, nn.Module]:
    stack = net if isinstance(net, Stack) else net.attn_layers
    return dict(stack.blocks.items())


def whole_shapes(graph: BlockGraph) -> dict[str, torch.Size]:
    """The model's parameters as one process has them: names and shapes."""
    with torch.device("meta"):
        net = lower_stream(graph)
    return {name: parameter.shape for name, parameter in net.named_parameters()}


def targets_in(tokens: Tensor, mask: Tensor | None, ignore_index: int = -100) -> Tensor:
    """(batch,) how many tokens of each row are predicted."""
    counted = tokens[:, 1:] != ignore_index
    if mask is not None:
        counted = counted & mask[:, 1:] & mask[:, :-1]
    return counted.sum(dim=1)
