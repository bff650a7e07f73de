"""`distribute(graph, mesh)`: one rank's part of a language model that trains over many.

    import torch.distributed as dist
    from xt_blocks import distribute

    dist.init_process_group("gloo")                        # under torchrun
    job = distribute(graph, "fsdp=4", seed=0)
    optimizer = torch.optim.AdamW(job.parameters())
    for step, tokens in enumerate(batches):                # (batch, seq + 1), the same on every rank
        job.seed(step)                                     # what is dropped
        loss = job.backward(tokens)
        job.clip(1.0)
        optimizer.step()
        optimizer.zero_grad()

Owns that losses and gradients are those of one process: of the mean over all of a batch's targets, whatever the mesh.
Leaves how a batch is shared to `batch`, and the optimiser to torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from blockdsl import BlockGraph
from blockdsl.errors import UserError
from blockdsl.plan.context import why_whole_rows
from blockdsl.plan.local import node_cuts, tensor_part, tensor_splits, whole_layers
from blockdsl.plan.mesh import Mesh
from blockdsl.plan.schedule import check_schedule
from blockdsl.plan.stages import stages
from blockdsl.registry.options import whole
from blockdsl.registry.split import Split

from ..generation.lower import lower, writes_text
from ..runtime.compiled import compile_block
from ..runtime.modules import block_module
from ..runtime.seeds import seed_for
from ..runtime.stack import Stack
from . import checkpoint
from .batch import Batch
from .init import encoder_of, fill, initialised
from .pieces import HeldTensor
from .pipeline import Pipeline, Shared, check_shared, rounds, stages_of
from .ranks import Ranks
from .reasons import reason
from .shard import average_numbers, let_go, local_part, sharded, sum_copies
from .stage import StageLoss, StageModel, StageStack
from .tensor import cuts as cuts_of
from .tensor import sum_gradients, tensor_parallel

if TYPE_CHECKING:
    from blockdsl import Cut

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


@dataclass
class BatchLosses:
    """Of a batch: the mean cross-entropy over its targets, in nats, and what blocks added to it by name."""

    cross_entropy: float
    added: dict[str, float] = field(default_factory=dict)


def distribute(graph: BlockGraph, mesh: Mesh | str, **options: Any) -> Job:
    """This rank's part of a model that writes tokens over the ranks of a mesh; see `Job`.

    Args:
        graph: of tokens, as `blockdsl.compile(..., causal=True, num_tokens=256, max_seq_len=128)` gives it; or of an
            encoder and such a decoder, `(a f)*6 => (a c f)*6`, along dp and fsdp.
        mesh: the ranks along each axis, or its text, "dp=2,fsdp=2".

    Raises:
        UserError: the process group has another number of ranks, or the model cannot be split so; the message says why.
        TypeError: the graph or the mesh is none.
    """
    if not isinstance(graph, BlockGraph):
        raise TypeError(f"graph must be a BlockGraph, as blockdsl.compile makes one, not {type(graph).__name__}")
    if not isinstance(mesh, Mesh | str):
        raise TypeError(f'mesh must be a Mesh or its text, as "dp=2,fsdp=2", not {type(mesh).__name__}')
    return Job(graph, Mesh.parse(mesh) if isinstance(mesh, str) else mesh, **options)


class Job:
    """One rank's part of a model.

    Args:
        graph: the whole model's.
        mesh: the ranks along each axis.
        seed: of the initial weights, which are the same bits on every mesh.
        device: of this rank.
        precision: "fp32", or "bf16": blocks compute in bfloat16, of parameters that stay float32. Where ranks share
            the parameters, these are gathered in bfloat16, and gradients are summed in float32.
        compile: blocks run compiled.
        accumulate: micro-batches that a rank's rows are cut into; along pp at least one for each rank.
        schedule: along pp, one of `pipeline.SCHEDULES`.

    Attributes:
        ranks: the mesh, and this rank's place in it.
        stages: those that this rank has, by their place; without pp there is one.
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
        schedule: str = "1f1b",
    ) -> None:
        if precision not in PRECISIONS:
            raise UserError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
        check_schedule(schedule, mesh)
        if graph.reads != "tokens" or (graph.encoder is not None and not writes_text(graph)):
            raise UserError("a job trains a model that writes tokens: give num_tokens, with => of both streams")
        if graph.encoder is not None and mesh.data < mesh.size:
            raise UserError(f"an encoder with its decoder is trained along dp and fsdp, not on {mesh}")
        if why := graph.sees_later():
            raise UserError(f"a job trains a model that predicts the next token, and it sees later ones: {why}")
        if mesh.cp > 1 and (why := why_whole_rows(graph)):
            raise UserError(f"cp={mesh.cp}: {why}")
        if graph.encoder is None and graph.nodes("context"):
            reader = next(iter(graph.nx.succ[graph.nodes("context")[0]]))
            raise UserError(f"a job's batches are tokens alone, and {reader} attends to a context; => gives an encoder")
        if any(stream.nodes("condition") for stream in graph.streams().values()):
            raise UserError("a job's loss takes no condition, and norms or layer scales of this pattern read one")
        self.graph, self.mesh, self.accumulate = graph.lint(), mesh, whole("accumulate", accumulate, 1)
        self.ranks, self.precision = Ranks(mesh, device), PRECISIONS[precision]
        self.whole_shapes = whole_shapes(graph)
        self.cuts: dict[str, Cut] = {}
        self.stages = self._made(seed, compile, schedule)
        self.pipeline, self.shared = None, None
        if mesh.pp > 1:
            micro = mesh.pp * -(-self.accumulate // mesh.pp) if rounds(schedule) > 1 else max(mesh.pp, self.accumulate)
            self.pipeline = Pipeline(self.stages, self.ranks, schedule, micro)
            self.shared = Shared([name for name, _ in self.named_parameters()], self.ranks)

    def _made(self, seed: int, compile: bool, schedule: str) -> dict[int, StageLoss]:
        """This rank's stages, with its share of each of their blocks and of what is around them."""
        ranks, rank = self.mesh.tp, self.ranks.place["tp"]
        text = self.graph.streams().get("decoder", self.graph)
        local, splits = tensor_part(text, ranks), tensor_splits(text, ranks)
        if ranks > 1 and not any(isinstance(split, Split) for split in splits.values()):
            raise UserError(f"tp={ranks}: no block splits: {whole_layers(splits)}")
        drawn: dict[str, nn.Module] = {}

        def kept(node: str, block: nn.Module) -> nn.Module:
            """Shared by the data ranks before the next block is drawn, so that no rank holds the whole model."""
            block.to(self.ranks.device)
            if compile:
                compile_block(block)
            return sharded(block, self.ranks, self.precision)

        def share(node: str, block: nn.Module) -> nn.Module:
            if node in drawn:  # tied to one of another stage of this rank
                return drawn[node]
            if ranks > 1 and isinstance(split := splits[node], Split):
                whole, block = block, block_module(local, node)
                cuts = node_cuts(text, node, split, ranks)
                fill(block, whole, {f"layer.{name}": cut for name, cut in cuts.items()}, ranks, rank)
            drawn[node] = kept(node, block)
            return drawn[node]

        owner = {node: first for first, nodes in text.tied().items() for node in nodes}
        mine = stages_of(self.ranks.place["pp"], self.mesh.pp, schedule) if self.mesh.pp > 1 else [0]
        parts = stages(local, self.mesh.pp * len(mine))
        check_shared(local, parts, self.mesh.pp, schedule)
        out: dict[int, StageLoss] = {}
        for index in mine:
            part = parts[index]
            source = initialised(text, seed, share, {owner.get(node, node) for node in part.nodes})
            stack = StageStack(local.stack_alone(), _blocks(source), part.nodes, part.beside)
            net = StageModel(stack, local.model_options())
            own_cuts = cuts_of(net, text, ranks) if ranks > 1 else {}
            fill(net, source, own_cuts, ranks, rank)
            if ranks > 1:
                tensor_parallel(net, text, self.ranks.group("tp"))
            self.cuts |= own_cuts
            along = self.ranks.group("cp") if self.mesh.cp > 1 else None
            encoder, scale = encoder_of(self.graph, seed, kept), self.mesh.data * self.mesh.cp
            # FSDP takes the mean over its ranks, and a batch's loss is a sum of shares: hence the scale
            stage = StageLoss(net, self._autocast, scale, self.ranks.total, along, encoder, self.graph.tie_token_emb)
            out[index] = stage.to(self.ranks.device)
            sharded(stage, self.ranks)
        return out

    @property
    def nets(self) -> list[nn.Module]:
        """The models that this rank has, each with some of the graph's blocks, and its share of their parameters."""
        return [stage.model for stage in self.stages.values()]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """This rank's parameters, by the names of one process."""
        named = {name: parameter for net in self.nets for name, parameter in net.named_parameters()}
        return iter(named.items())

    def parameters(self) -> Iterator[nn.Parameter]:
        """This rank's parameters, for an optimiser."""
        return (parameter for _, parameter in self.named_parameters())

    def seed(self, *of: int | str) -> None:
        """Seed what is dropped in the batches to come: for each row as on one process with `seed_for("dropout", *of)`.

        torch's own random numbers, which modules of a kind of one's own may draw, are other ones for each share of the
        rows and each stage; where there is one share and one stage, they are those of one process.
        """
        seed = seed_for("dropout", *of)
        apart = [self.ranks.data] if self.mesh.data > 1 else []
        if self.mesh.pp > 1:
            apart = [self.ranks.data, self.ranks.place["pp"]]
        torch.manual_seed(seed_for("dropout", *of, *apart))
        for stage in self.stages.values():
            stage.seed = seed

    def check_batch(self, rows: int, seq_len: int) -> None:
        """
        Raises:
            UserError: batches of so many rows, of so many tokens and one more, cannot be shared by the ranks.
        """
        if rows < (least := self.mesh.data * self.accumulate):
            pieces = f"dp × fsdp of {self.mesh} is {self.mesh.data}, and accumulate is {self.accumulate}"
            count = f"{rows} row{'s' * (rows != 1)}"
            raise UserError(f"a batch of {count} cannot be cut into {least} pieces: {pieces}")
        self.ranks.tokens(seq_len)

    def backward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        source: Tensor | None = None,
        source_mask: Tensor | None = None,
    ) -> BatchLosses:
        """Add the gradients of a batch's mean loss.

        Args:
            tokens: (batch, seq + 1) int, the whole batch, the same on every rank.
            mask: (batch, seq + 1) bool, True = a real token.
            source: what an encoder reads of each row: (batch, source) tokens, (batch, source, dim_in) vectors or
                (batch, channels, height, width) images.
            source_mask: (batch, source) bool.

        Raises:
            ValueError: a shape or type is wrong, a token is none of the model's, or none is to be predicted.
            UserError: the ranks cannot share so many rows, or rows so long.
        """
        losses = self._passes(Batch(tokens, mask, source, source_mask), gradients=True)
        average_numbers(self.parameters(), self.ranks)
        if self.mesh.tp > 1:
            for net in self.nets:
                names = dict(net.named_parameters())
                own = {name: cut for name, cut in self.cuts.items() if name in names}
                sum_gradients(net, own, self.ranks.group("tp"))
        if self.shared is not None:
            self.shared.sum_gradients(dict(self.named_parameters()))
        return losses

    def loss(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        source: Tensor | None = None,
        source_mask: Tensor | None = None,
    ) -> BatchLosses:
        """A batch's mean loss, without gradients and in evaluation mode."""
        return self._passes(Batch(tokens, mask, source, source_mask), gradients=False)

    def generate(self, prompts: Tensor, seq_len: int, **options: Any) -> Tensor:
        """What `AutoregressiveWrapper.generate` gives, the same on every rank, with the arguments of that; or what
        `XTransformer.generate` does, whose prompts are the source.

        Raises:
            UserError: along pp no rank has the model from end to end.
        """
        tokens: Tensor = self._called(lambda wrapper: wrapper.generate(prompts, seq_len=seq_len, **options))
        return tokens

    def beam_search(self, prompts: Tensor, seq_len: int, beams: int = 4, **options: Any) -> Tensor:
        """What `AutoregressiveWrapper.beam_search` gives, as `generate`."""
        options |= {"seq_len": seq_len, "beams": beams}
        tokens: Tensor = self._called(lambda wrapper: wrapper.beam_search(prompts, **options))
        return tokens

    @torch.no_grad()
    def logits(self, tokens: Tensor) -> Tensor:
        """(batch, seq, logits) of `tokens: (batch, seq)`, in evaluation mode, the same on every rank."""
        if self.graph.encoder is not None:
            raise UserError("these are logits of one stream of tokens, and this model has an encoder too")
        for stage in self.stages.values():
            stage.eval()
        tokens = tokens.to(self.ranks.device)
        if self.pipeline is not None:
            return self.pipeline.logits(tokens)
        logits: Tensor = self._called(lambda wrapper: wrapper.net(tokens))
        return logits

    def _called(self, call: Callable[[Any], Any]) -> Any:
        if self.pipeline is not None:
            raise UserError(f"along pp no rank has the whole model ({self.mesh}): read its checkpoint on another mesh")
        (stage,) = self.stages.values()
        with self._autocast(), torch.no_grad():
            out = stage(call=call)
        let_go(stage)
        return out

    def _passes(self, batch: Batch, gradients: bool) -> BatchLosses:
        if (batch.source is None) != (self.graph.encoder is None):
            raise ValueError("source= is what an encoder reads: give it to a model that has one, and to no other")
        batch.check(self.graph)
        if gradients:
            self.check_batch(len(batch.tokens), batch.tokens.shape[1] - 1)
        for stage in self.stages.values():
            stage.train(gradients)
        count = self.pipeline.micro if self.pipeline is not None else self.accumulate if gradients else 1
        pieces = batch.pieces(self.ranks, count, alike=self.pipeline is not None)
        if self.pipeline is not None:
            given = [name for name, value in pieces[0].items() if value is not None]
            self.pipeline.run(gradients, {name: torch.cat([piece[name] for piece in pieces]) for name in given})
        else:
            (stage,) = self.stages.values()
            for number, piece in enumerate(pieces, 1):
                with torch.set_grad_enabled(gradients):
                    objective = stage(**piece)
                if gradients:
                    sum_copies(stage, number == len(pieces))
                    torch.autograd.backward(objective)
            if not gradients:
                let_go(stage)
        return self._found()

    def _found(self) -> BatchLosses:
        """What the last stages of all ranks have found, summed in the order of ranks."""
        mine: list[tuple[str, float]] = []
        for stage in self.stages.values():
            if self.ranks.once(("tp",)):
                mine += [(name, float(value)) for found in stage.found for name, value in found.items()]
            stage.found.clear()
        every: list[Any] = [None] * self.mesh.size
        dist.all_gather_object(every, mine)
        sums: dict[str, float] = {}
        for name, value in (each for held in every for each in held):
            sums[name] = sums.get(name, 0.0) + value
        return BatchLosses(sums.pop(""), sums)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.ranks.device.type, self.precision, enabled=self.precision is not None)

    def contents(self, *optimizers: torch.optim.Optimizer) -> dict[str, HeldTensor]:
        """What a checkpoint has of this rank's part, under the names of one process."""
        return checkpoint.contents(self.nets, optimizers, self.held)

    def make_states(self, stored: Mapping[str, torch.Size], *optimizers: torch.optim.Optimizer) -> None:
        """Give optimisers the state that a checkpoint with these names has, of zeros, for reading to fill."""
        checkpoint.make_states(self.nets, optimizers, stored, self.whole_shapes)

    def held(self, name: str, tensor: Tensor) -> HeldTensor:
        """What this rank has of a tensor that is shared as the parameter of this name is."""
        return HeldTensor.of(tensor, self.whole_shapes[name], self.cuts.get(name), self.mesh.tp, self.ranks.place["tp"])

    def gathered(self, name: str, tensor: Tensor) -> Tensor:
        """The whole of such a tensor; all ranks that share the parameter call this at once."""
        own = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if name not in self.cuts:
            return own
        whole = own.new_zeros(self.whole_shapes[name])
        for each in self.held(name, own).rectangles:
            if each.first:
                each.of(whole).copy_(each.part)
        dist.all_reduce(whole, group=self.ranks.group("tp"))
        return whole

    def save(self, folder: str | PathLike[str], *optimizers: torch.optim.Optimizer) -> None:
        """Write a checkpoint that any mesh reads, into a folder that is new or empty; every rank calls this.

        Raises:
            UserError: a rank could not write, as on a full disk.
        """
        try:
            checkpoint.write(Path(folder), self.contents(*optimizers))
        except UserError as error:
            raise UserError(f"{folder} cannot be written: {error}") from error

    def load(self, folder: str | PathLike[str], *optimizers: torch.optim.Optimizer) -> None:
        """Read what `save` wrote, on this mesh or another; every rank calls this.

        Raises:
            UserError: it is damaged, lacks a file, or is of another model; the job then holds some of it.
        """
        try:
            self.make_states(checkpoint.shapes(Path(folder)), *optimizers)
            checkpoint.read(Path(folder), self.contents(*optimizers))
        except (UserError, OSError, KeyError, ValueError) as error:
            raise UserError(f"{folder} cannot be read: {reason(error)}") from error

    def clip(self, max_norm: float) -> float:
        """Scale all gradients so that their norm over the whole model is at most this, above 0; returns what it was."""
        if not max_norm > 0:
            raise UserError(f"max_norm must be above 0, not {max_norm}")
        here = 0.0
        if self.ranks.once(("dp",)):
            for name, parameter in self.named_parameters():
                if parameter.grad is not None and (self.shared is None or self.shared.counts(name)):
                    if not parameter.ndim and not self.ranks.once(("fsdp", "cp")):
                        continue  # each rank has it
                    parts = self.held(name, parameter.grad).rectangles
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
        net = lower(graph)
    return {name: parameter.shape for name, parameter in net.named_parameters()}
