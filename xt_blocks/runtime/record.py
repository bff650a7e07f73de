"""Statistics of a model's blocks and reads: the size of the stream and of each branch, and attention weights.

    record(model, tokens)["a2"]["attention_entropy"]      # one number a head, in nats
    attention_map(model, tokens, "a2", head=0)            # (queries, keys)

Runs the model once in evaluation mode, without gradients. Hooks on its stacks record the pass, so any module that
calls stacks works: a stack, a TransformerWrapper, an XTransformer, your own model.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from blockdsl.errors import UserError
from blockdsl.registry.options import plain

from ..blocks.block import BlockOutput
from ..blocks.join import StreamJoin
from ..kernels.request import Scores
from .evaluation import evaluating
from .intermediates import Intermediates
from .stack import Stack


class BlockRecord(TypedDict):
    """Statistics of one block or read, as plain numbers.

    stream_norm: of the stream it read: root mean square over features, mean over real tokens; 0 if there are none.
    branch_norm: the same of its branch's update, as it is added.
    attention_entropy: of each head, -Σ w·ln w over the keys in nats, mean over real queries that attend to any key; 0
        if none does. None for a block without attention.
    statistics: what its kind counts, by name: of experts `expert_load`, the share of the real tokens' choices that fell
        on each. Of a read `read_norm`, the norm of each value that joins the stream, and by the name of how they join
        what each is multiplied by: `gain`, `soft`, or of a `gate` the mean over real tokens.
    """

    stream_norm: float
    branch_norm: float
    attention_entropy: list[float] | None
    statistics: dict[str, list[float]]


def record(model: nn.Module, *args: Any, **kwargs: Any) -> dict[str, BlockRecord]:
    """Statistics of the blocks and reads of a model in one pass, `model(*args, **kwargs)`.

    Tokens are those of the stack: memory tokens and prepended embeddings count, padding does not. Keys include memory
    key-values.

    Returns:
        node → its BlockRecord, in the order in which they ran. If the model has several stacks, nodes are prefixed with
        the name of their stack: `encoder.a0` and `decoder.c1` for an XTransformer. For a stack that ran more than once,
        the last pass counts.

    Raises:
        ValueError: no stack of the model ran.
    """
    seen = _observed(model, args, kwargs)
    return {prefix + node: row for prefix, one in seen.items() for node, row in one.rows().items()}


def attention_map(model: nn.Module, x: Tensor, node: str, head: int, row: int = 0, **kwargs: Any) -> Tensor:
    """The attention weights of a block's head in one pass, `model(x, **kwargs)`.

    Args:
        x: the model's first argument, such as (batch, seq) tokens.
        node: the block, named as in `record`.
        row: of the batch.

    Returns:
        (queries, keys) after the softmax. Each row sums to 1, to less with an option that takes a share (such as a
        sink), or to 0 if all keys are masked. Memory key-values come before the tokens' keys.

    Raises:
        UserError: the model has no such block, or the block no attention or no such head.
        ValueError: no stack of the model ran.
    """
    seen = _observed(model, (x,), kwargs)
    maps = {prefix + name: scores for prefix, one in seen.items() for name, scores in one.attention().items()}
    blocks = {prefix + name for prefix, one in seen.items() for name in one.seen.streams}
    if node not in maps:
        problem = "has no attention" if node in blocks else "is not a block of the model"
        raise UserError(f"{node} {problem}; those with attention are {', '.join(maps) or 'none'}")
    weights = maps[node].weights
    head, row = plain(head), plain(row)
    for name, index, size in (("head", head, weights.shape[1]), ("row", row, weights.shape[0])):
        if type(index) is not int or not 0 <= index < size:
            raise UserError(f"{name} must be from 0 to {size - 1}, not {index}")
    return weights[row, head]


@dataclass
class _Pass:
    """One pass through a stack: what its blocks read and attended to, the mask, and the update of each branch."""

    stack: Stack
    mask: Tensor | None
    seen: Intermediates
    updates: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))  # of each module, in order
    reads: dict[str, list[BlockRecord]] = field(default_factory=lambda: defaultdict(list))  # the same

    def attention(self) -> dict[str, Scores]:
        return {node: scores for node, scores in self.seen.attention.items() if isinstance(scores, Scores)}

    def rows(self) -> dict[str, BlockRecord]:
        """Each node that ran, in order. Tied nodes share a module, which ran for each of them in order."""
        updates = {owner: iter(each) for owner, each in self.updates.items()}
        reads = {owner: iter(each) for owner, each in self.reads.items()}
        out = {}
        for step in self.stack.plan:
            if step.block is not None and step.node in self.seen.streams:
                out[step.node] = self.block(step.node, next(updates[step.block]))
            elif step.join in reads:
                out[step.node] = next(reads[step.join])
        return out

    def block(self, node: str, update: Tensor) -> BlockRecord:
        scores = self.attention().get(node)
        return {
            "stream_norm": self._size(self.seen.streams[node]),
            "branch_norm": self._size(update),
            "attention_entropy": None if scores is None else self._entropies(scores.weights),
            "statistics": {name: t.tolist() for name, t in self.seen.statistics.get(node, {}).items()},
        }

    def read(self, join: StreamJoin, x: Tensor, earlier: Sequence[Tensor], gained: Tensor) -> BlockRecord:
        """Of a read at the stream x."""
        statistics, factors = {"read_norm": [self._size(u) for u in earlier]}, join.factors(x)
        if factors is not None:
            each = factors if factors.ndim == 1 else factors.double()[self._real(factors)].reshape(-1, len(earlier))
            statistics[join.join] = (each if each.ndim == 1 else each.sum(dim=0) / max(1, len(each))).tolist()
        sizes = {"stream_norm": self._size(x), "branch_norm": self._size(gained)}
        return {**sizes, "attention_entropy": None, "statistics": statistics}  # type: ignore[typeddict-item]

    def _size(self, x: Tensor) -> float:
        """`x: (batch, seq, dim)`"""
        sizes = x.double().square().mean(dim=-1).sqrt()[self._real(x)]
        return sizes.mean().item() if sizes.numel() else 0.0

    def _real(self, x: Tensor) -> Tensor:
        """(batch, seq) bool of `x: (batch, seq, ...)`."""
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if self.mask is None else self.mask

    def _entropies(self, weights: Tensor) -> list[float]:
        """`weights: (batch, heads, queries, keys)`"""
        weights = weights.double().transpose(1, 2)
        weights = weights.abs()  # of cog_signed, whose magnitudes sum to 1
        entropy = torch.special.entr(weights).sum(dim=-1)  # (batch, queries, heads)
        counted = self._real(entropy)[..., None] & (weights.sum(dim=-1) > 0)
        total = torch.where(counted, entropy, 0.0).sum(dim=(0, 1))
        return (total / counted.sum(dim=(0, 1)).clamp(min=1)).tolist()


def _observed(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, _Pass]:
    """Prefix of its nodes' names → the last pass of each stack that ran."""
    passes: dict[str, _Pass] = {}
    stacks = named_stacks(model)
    with ExitStack() as hooks, evaluating(model):
        for prefix, stack in stacks.items():
            hooks.enter_context(_hooked(prefix, stack, passes))
        model(*args, **kwargs)
    if not passes:
        raise ValueError(f"no stack of blocks ran in {type(model).__name__}")
    return passes


def named_stacks(model: nn.Module) -> dict[str, Stack]:
    """Each stack of a model by what its nodes' names begin with: nothing for the only one, else as "encoder.".

    Raises:
        TypeError: it is no model.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"a model is a torch module, as lower(graph) makes one, not {type(model).__name__}")
    stacks = {name: module for name, module in model.named_modules() if isinstance(module, Stack)}
    if len(stacks) == 1:
        return dict(zip(("",), stacks.values(), strict=True))
    firsts = [name.partition(".")[0] for name in stacks]
    short = len({*firsts}) == len(firsts)
    return {(name.partition(".")[0] if short else name) + ".": stack for name, stack in stacks.items()}


@contextmanager
def _hooked(name: str, stack: Stack, passes: dict[str, _Pass]) -> Iterator[None]:
    """Inside, record each pass of this thread through the stack in `passes`."""
    signature, thread = inspect.signature(stack.forward), get_ident()

    def starts(_: nn.Module, args: Any, kwargs: dict[str, Any] | None = None) -> Any:
        if get_ident() != thread or kwargs is None:  # None: another thread found the hook before its kwargs were asked
            return None
        bound = signature.bind(*args, **kwargs)
        seen = bound.arguments.get("intermediates") or Intermediates()
        seen.keep_attention = True
        passes[name] = _Pass(stack, bound.arguments.get("mask"), seen)
        bound.arguments["intermediates"] = seen
        return bound.args, bound.kwargs

    def gives(owner: str) -> Any:
        def keep(_: nn.Module, args: Any, out: BlockOutput) -> None:
            if get_ident() == thread:
                passes[name].updates[owner].append(out.update)

        return keep

    def joins(owner: str) -> Any:
        def keep(join: nn.Module, args: Any, out: tuple[Tensor, Tensor]) -> None:
            if get_ident() == thread and isinstance(join, StreamJoin):
                x, earlier, *_ = args
                passes[name].reads[owner].append(passes[name].read(join, x, earlier, out[1]))

        return keep

    handles = [stack.register_forward_pre_hook(starts, with_kwargs=True)]
    handles += [block.register_forward_hook(gives(owner)) for owner, block in stack.blocks.items()]
    handles += [join.register_forward_hook(joins(owner)) for owner, join in stack.joins.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
