"""The stages of a pipeline over ranks: which rank has which, and a batch through them (GPipe, arXiv:1811.06965).

The schedules are those of torch.distributed.pipelining. Owns what crosses the cuts between ranks, and the gradients of
what several stages have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import PipelineScheduleSingle, get_schedule_class

from blockdsl.errors import UserError
from blockdsl.plan.schedule import SCHEDULES as PLANNED
from blockdsl.plan.stages import PipelineStage as Part
from blockdsl.plan.stages import has_parameters, shared

from .ranks import Ranks
from .shard import let_go, local_part, sum_copies
from .stage import CutLayout, StageLoss

if TYPE_CHECKING:
    from blockdsl import BlockGraph

SCHEDULES = {
    "gpipe": "GPipe",
    "1f1b": "1F1B",
    "interleaved": "Interleaved1F1B",
    "zero-bubble": "InterleavedZeroBubble",
}
"""Our names → torch's. The first two have one stage a rank (1F1B: PipeDream, arXiv:1806.03377), the others two
(Narayanan et al., arXiv:2104.04473; Qi et al., arXiv:2401.10241). Left out: those in a V, which cannot evaluate.
With FSDP, torch's zero-bubble loses gradients of some micro-batches, and `check_schedule` refuses it."""


def stages_of(rank: int, ranks: int, schedule: str) -> list[int]:
    """Which stages a rank has."""
    return [rank + i * ranks for i in range(rounds(schedule))]


def rounds(schedule: str) -> int:
    """How many stages each rank has."""
    return PLANNED[schedule].stages


class Pipeline:
    """A rank's stages among those of its line of ranks along pp.

    Args:
        stages: this rank's, by their place.
        micro: micro-batches of a batch.
    """

    def __init__(self, stages: Mapping[int, StageLoss], ranks: Ranks, schedule: str, micro: int) -> None:
        self.stages, self.ranks, self.schedule, self.micro = stages, ranks, schedule, micro
        self.group = ranks.group("pp")
        self.count = ranks.mesh.pp * rounds(schedule)
        self.owner = {
            stage: rank for rank in range(ranks.mesh.pp) for stage in stages_of(rank, ranks.mesh.pp, schedule)
        }
        self.made: dict[tuple[Any, ...], Any] = {}

    def run(self, gradients: bool, inputs: Mapping[str, Tensor]) -> None:
        """All micro-batches through all stages, and their gradients; the last stage keeps what it found.

        Args:
            inputs: those of `StageLoss`, of all micro-batches, one after another and alike in size.
        """
        schedule = self._schedule(gradients, inputs)
        target = torch.zeros(self.micro, device=self.ranks.device, dtype=torch.float32)
        on_last = {"target": target} if self.count - 1 in self.stages else {}
        if gradients:
            schedule.step(**inputs, **on_last, return_outputs=False)
            return
        with torch.no_grad():
            schedule.eval(**inputs, **on_last, return_outputs=False)
        for stage in self.stages.values():
            let_go(stage)

    def logits(self, tokens: Tensor) -> Tensor:
        """(batch, seq, logits) of `tokens: (batch, seq)` on every rank, by a pass through one stage after another."""
        found: Any = {}
        for index in range(self.count):
            box: list[Any] = [None]
            if index in self.stages:
                box[0] = self.stages[index].passed(found, tokens)
                let_go(self.stages[index])
            source = dist.get_global_rank(self.group, self.owner[index])
            dist.broadcast_object_list(box, src=source, group=self.group)
            found = box[0]
        logits: Tensor = found
        return logits.to(self.ranks.device)

    def _schedule(self, gradients: bool, inputs: Mapping[str, Tensor]) -> Any:
        """torch's schedule for inputs of these shapes."""
        key = (gradients, *((name, value.shape) for name, value in inputs.items()))
        if key not in self.made:
            layouts = self._layouts(
                gradients, {name: value.tensor_split(self.micro)[0] for name, value in inputs.items()}
            )
            stages = [self._stage(index, layouts) for index in self.stages]
            kind: Any = get_schedule_class(SCHEDULES[self.schedule])
            single = issubclass(kind, PipelineScheduleSingle)
            self.made[key] = (
                layouts,
                kind(stages[0] if single else stages, self.micro, loss_fn=_as_it_is, scale_grads=False),
            )
        layouts, schedule = self.made[key]
        for index, stage in self.stages.items():
            stage.source, stage.layout = layouts[index - 1] if index else None, layouts[index]
        return schedule

    def _stage(self, index: int, layouts: Sequence[CutLayout | None]) -> PipelineStage:
        before, after = layouts[index - 1] if index else None, layouts[index]
        scalar = (torch.zeros((), device="meta", dtype=torch.get_default_dtype(), requires_grad=True),)
        stage: nn.Module = self.stages[index]
        return PipelineStage(
            PlainStage(stage, self.micro) if self.ranks.mesh.shards > 1 else stage,
            index,
            self.count,
            self.ranks.device,
            input_args=() if before is None else before.like("meta", gradients=True),
            output_args=scalar if after is None else after.like("meta", gradients=True),
            group=self.group,
        )

    def _layouts(self, gradients: bool, inputs: Mapping[str, Tensor]) -> list[CutLayout | None]:
        """What each stage sends, found by a pass of zeros through one stage after another; the last sends nothing."""
        found: list[CutLayout | None] = []
        for index in range(self.count):
            box: list[CutLayout | None] = [None]
            if index in self.stages:
                box[0] = self._tried(self.stages[index], found[-1] if found else None, gradients, inputs)
            source = dist.get_global_rank(self.group, self.owner[index])
            dist.broadcast_object_list(box, src=source, group=self.group)
            found.append(box[0])
        return found

    def _tried(
        self, stage: StageLoss, source: CutLayout | None, gradients: bool, inputs: Mapping[str, Tensor]
    ) -> CutLayout | None:
        stage.source, stage.layout = source, None
        kept = {name: buffer.clone() for name, buffer in stage.named_buffers()}
        cuda = [self.ranks.device] if self.ranks.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), torch.set_grad_enabled(gradients):  # what blocks add depends on it
            stage(*(source.like(self.ranks.device) if source is not None else ()), **inputs)
        with torch.no_grad():
            for name, buffer in stage.named_buffers():
                buffer.copy_(kept[name])
        stage.found.clear()
        let_go(stage)
        return stage.layout


class PlainStage(nn.Module):
    """A stage that torch's schedules do not know for one of FSDP.

    Of one that they know they keep parameters gathered, and gradients whole, until the last micro-batch has gone back.
    So each micro-batch gathers, sums and lets go, as without a pipeline; along dp gradients are summed with the last.
    Where each rank has all parameters there is nothing to let go, and one sum a step is enough.

    Args:
        micro: micro-batches of a step.
    """

    def __init__(self, stage: nn.Module, micro: int) -> None:
        super().__init__()
        self.stage, self.micro, self.gone_back = stage, micro, 0

    def forward(self, *received: Tensor, **inputs: Tensor) -> Any:
        """See `StageLoss`."""
        out = self.stage(*received, **inputs)
        made = [tensor for tensor in (out if isinstance(out, tuple) else (out,)) if tensor.requires_grad]
        if made:
            register_multi_grad_hook(made, self._goes_back, mode="any")
        return out

    def _goes_back(self, grad: Tensor) -> None:
        """At the start of a micro-batch's backward pass."""
        self.gone_back = (self.gone_back + 1) % self.micro
        sum_copies(self.stage, self.gone_back == 0)


def _as_it_is(output: Tensor, target: Tensor) -> Tensor:
    """The last stage's output is the objective."""
    return output


def check_shared(graph: BlockGraph, parts: Sequence[Part], ranks: int, schedule: str) -> None:
    """
    Raises:
        UserError: two stages of a rank have the same parameters, or under zero-bubble two blocks of a stage.
    """
    if schedule == "zero-bubble":
        for part in parts:
            for name, nodes in _read_by(graph, part).items():
                if len(nodes) > 1:
                    both = f"{' and '.join(nodes[:2])} both read the parameters of {name}"
                    raise UserError(f"schedule=zero-bubble uses no parameter twice in a stage, and {both}: take 1f1b")
    for node, where in shared(graph, parts).items():
        if len({stage % ranks for stage in where}) < len(where):
            what = "the embedding, tied to the logits," if node == graph.start else f"the parameters of {node}"
            raise UserError(
                f"schedule={schedule} gives each rank several stages, and two of one rank share {what}: take 1f1b"
            )


def _read_by(graph: BlockGraph, part: Part) -> dict[str, list[str]]:
    """Tied blocks by their owner, and learned positions → the blocks of a stage that use their parameters."""
    out = {owner: [node for node in nodes if node in part.nodes] for owner, nodes in graph.tied().items()}
    for position in part.beside:
        if has_parameters(graph, position):
            out[position] = [node for node in part.nodes if position in graph.nx.pred[node]]
    return out


class Shared:
    """Parameters that several ranks along pp have, as of tied blocks or a tied embedding: their gradients are summed.

    Args:
        names: of this rank's parameters.
    """

    def __init__(self, names: Sequence[str], ranks: Ranks) -> None:
        line = ranks.group("pp")
        every: list[Any] = [None] * ranks.mesh.pp
        dist.all_gather_object(every, sorted(names), group=line)
        holders: dict[str, tuple[int, ...]] = {}
        for rank, held in enumerate(every):
            for name in held:
                holders[name] = (*holders.get(name, ()), rank)
        self.rank = ranks.place["pp"]
        self.holders = {name: where for name, where in sorted(holders.items()) if len(where) > 1}
        mine = [dist.get_global_rank(line, rank) for rank in range(ranks.mesh.pp)]
        wanted = sorted({*self.holders.values()})
        lines: list[Any] = [None] * ranks.mesh.size
        dist.all_gather_object(lines, mine)
        self.groups: dict[tuple[int, ...], dist.ProcessGroup] = {}
        for members in sorted({tuple(each) for each in lines}):  # a group is made by all ranks
            for where in wanted:
                group = dist.new_group([members[rank] for rank in where])
                if list(members) == mine:
                    self.groups[where] = group

    def counts(self, name: str) -> bool:
        """Whether this rank counts the parameter, which others may have too."""
        return self.holders.get(name, (self.rank,))[0] == self.rank

    def sum_gradients(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Add up what the stages have of each."""
        for name, where in self.holders.items():
            if (parameter := parameters.get(name)) is not None:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                own = local_part(parameter.grad)
                total = own.contiguous()  # under zero-bubble a gradient may lie in memory as on no other rank
                dist.all_reduce(total, group=self.groups[where])
                own.copy_(total)
