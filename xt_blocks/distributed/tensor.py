"""Tensor parallelism (Megatron-LM, arXiv:1909.08053): each rank runs its share of the layers that split.

A model is lowered from `blockdsl.plan.local.tensor_part`, and has the names of the whole one. Hooks around each layer
that splits do what ranks say to each other: its output is the sum over ranks, and so is the gradient of its input.
Owns these hooks, which part of each parameter a rank holds, and the sum of gradients of what ranks share.

Random numbers are drawn alike on all ranks, which start from one state: what is dropped is what one process drops.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from blockdsl.errors import UserError
from blockdsl.plan.local import node_cuts, table_cuts, tensor_splits
from blockdsl.registry.kinds import kinds
from blockdsl.registry.split import Cut, Split

from ..blocks.layer_output import LayerOutput
from ..blocks.part import LayerPart
from ..kernels.masks import Masks
from ..runtime.stack import Stack
from .shard import first_row, local_part

if TYPE_CHECKING:
    from blockdsl import BlockGraph


def cuts(model: nn.Module, graph: BlockGraph, ranks: int) -> dict[str, Cut]:
    """The parameters of layers that split by name → which part each rank holds; all others are whole on every rank.

    Args:
        model: lowered from the graph or from its `tensor_part`.
        graph: of the whole model.
    """
    out: dict[str, Cut] = {}
    for path, stack, whole in _stacks(model, graph):
        for name, node, split in _splits(stack, whole, ranks):
            own = node_cuts(whole, node, split, ranks)
            out |= {".".join(filter(None, (path, name, parameter))): cut for parameter, cut in own.items()}
        around = path.rpartition(".")[0]
        if path and whole.reads == "tokens":
            tables = table_cuts(whole, ranks).items()
            out |= {".".join(filter(None, (around, f"value_emb.{number}.weight"))): cut for number, cut in tables}
    return out


def tensor_parallel(model: nn.Module, graph: BlockGraph, group: dist.ProcessGroup) -> None:
    """Make a model of a rank's share one with the other ranks of its group, in place.

    Its parameters are to be those that `init.local_tensor` takes of the whole ones, before or after this.

    Args:
        model: lowered from `tensor_part(graph, group.size())`.
        graph: of the whole model.

    Raises:
        UserError: the model is lowered from another graph.
    """
    rank, ranks = group.rank(), group.size()
    part = LayerPart(rank, ranks, lambda x: _Total.apply(x, group))  # type: ignore[no-untyped-call]
    for _, stack, whole in _stacks(model, graph):
        heads = {whole.block(node)["options"].get("heads", 1) for node in stack.attending}
        stack.reads = replace(stack.reads, heads=frozenset(heads))
        for name, node, split in _splits(stack, whole, ranks):
            _check_share(stack.graph, node, split, ranks)
            layer = stack.get_submodule(name)
            for module in layer.modules():
                if callable(take_part := getattr(module, "take_part", None)):
                    take_part(part)
            if whole.node_type(node) == "block":
                _Hooks(group, stack.graph.block(node)["options"].get("heads")).join(layer)
    if rank:
        for name, cut in cuts(model, graph, ranks).items():
            if cut.once:
                model.get_parameter(name).requires_grad_(False)


def _check_share(graph: BlockGraph, node: str, split: Split, ranks: int) -> None:
    """That a graph has one rank's share at this node."""
    attrs = graph.nx.nodes[node]
    has: Mapping[str, Any] = attrs.get("options", attrs)
    for name, value in split.options.items():
        if has[name] != value:
            wrong = f"its {name}={has[name]} is not what one of {ranks} ranks has, {value}"
            raise UserError(f"{node}: {wrong}: lower tensor_part(graph, {ranks})")


def sum_gradients(model: nn.Module, cuts: Mapping[str, Cut], group: dist.ProcessGroup) -> None:
    """Add up the gradients of what several ranks of a group hold, once all backward passes of a step are done.

    What is whole in a layer that splits, and heads of keys and values that are read by several ranks' queries, have on
    each rank the gradient of its share alone.
    """
    shared = [part for name, cut in cuts.items() for part in _shared(model.get_parameter(name), cut, group)]
    for dtype in dict.fromkeys(own.dtype for own, _, _ in shared):
        parts = [part for part in shared if part[0].dtype == dtype]
        pieces = [own.new_zeros(count, *own.shape) for own, count, _ in parts]
        for each, (own, _, piece) in zip(pieces, parts, strict=True):
            each[piece] = own
        total = torch.cat([each.flatten() for each in pieces])
        dist.all_reduce(total, group=group)
        sums = torch.split(total, [each.numel() for each in pieces])
        for each, (own, count, piece) in zip(sums, parts, strict=True):
            own.copy_(each.view(count, *own.shape)[piece])


def _shared(parameter: Tensor, cut: Cut, group: dist.ProcessGroup) -> Iterator[tuple[Tensor, int, int]]:
    """Views of a gradient that other ranks have a share of: how many such pieces there are, and which it is."""
    if parameter.grad is None or cut.once:
        return
    ranks, rank = group.size(), group.rank()
    grad, axis, at = local_part(parameter.grad), cut.axis, 0
    if not grad.ndim:
        yield grad, 1, 0
        return
    before = first_row(parameter.grad) if axis == 0 else 0  # those of other ranks that shard this one's
    alone = [(parameter.shape[axis], *(cut.shared or (1,)))]
    for size, sharers in cut.local_parts(sum(cut.parts), ranks) if cut.parts else alone:
        start, end = (min(max(place - before, 0), grad.shape[axis]) for place in (at, at + size))
        if sharers > 1 and end > start:
            yield grad.narrow(axis, start, end - start), ranks // sharers, rank // sharers
        at += size


def _stacks(model: nn.Module, graph: BlockGraph) -> Iterator[tuple[str, Stack, BlockGraph]]:
    """The stacks of a model, with their paths in it and the graphs of the whole ones."""
    streams = graph.streams()
    for path, module in model.named_modules():
        if isinstance(module, Stack):
            side = "" if "" in streams else "encoder" if "encoder" in path.split(".") else "decoder"
            yield path, module, streams[side]


def _splits(stack: Stack, whole: BlockGraph, ranks: int) -> Iterator[tuple[str, str, Split]]:
    """Layers and position biases of a stack that split: the module's name, its node, and its share."""
    for node, split in tensor_splits(whole, ranks).items():
        if isinstance(split, Split) and node in stack.blocks:  # of tied blocks the first has the module
            yield f"blocks.{node}.layer", node, split
        elif isinstance(split, Split) and node in stack.positions:
            yield f"positions.{node}", node, split


class _Hooks:
    """What is done before and after a layer of which each rank has a share.

    Args:
        heads: of its share; None: it has none.
    """

    def __init__(self, group: dist.ProcessGroup, heads: int | None) -> None:
        self.group, self.heads = group, heads
        self.given = {"scores", "value_embed", *(what for kind in kinds().values() for what in kind.gives)}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hooks:  # a group cannot be copied
        return self

    def join(self, layer: nn.Module) -> None:
        layer.register_forward_pre_hook(self.before, with_kwargs=True)
        layer.register_forward_hook(self.after)

    def before(self, layer: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
        """The same inputs, whose gradients are sums over ranks; of what earlier layers gave, each has its own share."""
        args = tuple(self._shared_input(value) for value in args)
        inputs = {name: value if name in self.given else self._shared_input(value) for name, value in inputs.items()}
        if self.heads is not None and isinstance(masks := inputs.get("attend"), Masks):
            inputs["attend"] = masks.of_heads(self.group.rank() * self.heads, self.heads)
        return args, inputs

    def after(self, layer: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
        """The sum of the ranks' updates. A loss that each computes for all counts once."""
        if isinstance(out, Tensor):
            return self._summed(out)
        own = LayerOutput.of(out)
        losses = own.losses and {name: self._shared_loss(loss) for name, loss in own.losses.items()}
        return own._replace(update=self._summed(own.update), losses=losses)

    def _shared_input(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.requires_grad:
            return value
        return _Copy.apply(value, self.group)  # type: ignore[no-untyped-call]

    def _summed(self, update: Tensor) -> Tensor:
        out: Tensor = _Sum.apply(update, self.group)  # type: ignore[no-untyped-call]
        return out

    def _shared_loss(self, loss: Tensor) -> Tensor:
        out: Tensor = _Share.apply(loss, self.group.size())  # type: ignore[no-untyped-call]
        return out


class _Sum(torch.autograd.Function):
    """The sum over ranks; its gradient is each rank's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _Total(torch.autograd.Function):
    """The sum over ranks, of which each makes something else; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total, None


class _Copy(torch.autograd.Function):
    """What is the same on all ranks; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total, None


class _Share(torch.autograd.Function):
    """What each rank computes, whose gradients are added up later: of the gradient each takes its share."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: int) -> Tensor:
        ctx.ranks = ranks
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad / ctx.ranks, None
