"""Who owns each moment of a pass, forward and backward: a block, an end of a stack, or what is between blocks.

Hooks tell when a module of a block or a read is called. In the backward pass identities tell it, one before a block and
one after it: when the gradient comes through the latter, the block begins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .stacks import OneStack

BETWEEN = ""
"""The owner of what no block, read or end owns: sums of branches, masks, what others hook in."""

Begin = Callable[[str], None]


class _Mark(torch.autograd.Function):
    """Its inputs, unchanged; calls `reached` when their gradients have come."""

    @staticmethod
    def forward(ctx: Any, reached: Callable[[], None], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.reached = reached
        ctx.set_materialize_grads(False)
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.reached()
        return None, *grads


def _mark(reached: Callable[[], None], *tensors: Tensor) -> tuple[Tensor, ...]:
    out: tuple[Tensor, ...] = _Mark.apply(reached, *tensors)  # type: ignore[no-untyped-call]
    return out


class Owners:
    """One pass through the stacks of a model.

    Args:
        begin: called with a node, or BETWEEN, when its time begins.
        enters: called with a node and what it reads, (batch, seq, dim) or of several streams, before its time begins.
    """

    def __init__(
        self, stacks: list[OneStack], begin: Begin, enters: Callable[[str, Tensor], None] = lambda node, x: None
    ) -> None:
        self.stacks, self.begin, self.enters = stacks, begin, enters
        self.queues: dict[nn.Module, list[str]] = {}
        self.forward = True
        self.unfinished = Counter[str]()  # of each stack, blocks whose backward pass has not ended

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Inside, the stacks tell; the first owner is the first stack's input."""
        handles: list[Any] = []
        for i, one in enumerate(self.stacks):
            following = self.stacks[i + 1].start if i + 1 < len(self.stacks) else one.end
            handles.append(one.stack.register_forward_pre_hook(self._starts(one)))
            handles.append(one.stack.register_forward_hook(self._ends(one, following)))
            for module in one.calls():
                handles.append(module.register_forward_pre_hook(self._before(one)))
                handles.append(module.register_forward_hook(self._after(one)))
        try:
            self.begin(self.stacks[0].start)
            yield
        finally:
            for handle in handles:
                handle.remove()

    def begin_backward(self, begin: Begin) -> None:
        """The forward pass has ended, and the backward pass begins: with the loss, and the last stack's end."""
        self.forward, self.begin = False, begin
        begin(self.stacks[-1].end)

    def _starts(self, one: OneStack) -> Any:
        def hook(stack: nn.Module, args: Any) -> None:
            if self.forward:
                self.queues |= {module: [*nodes] for module, nodes in one.calls().items()}

        return hook

    def _ends(self, one: OneStack, following: str) -> Any:
        def hook(stack: nn.Module, args: Any, out: Any) -> Any:
            if not self.forward:
                return None
            self.begin(following)
            if not isinstance(out, Tensor) or not out.requires_grad:
                return None
            (out,) = _mark(lambda: self.begin(one.end), out)  # an encoder's, when all that read it have gone back
            return out

        return hook

    def _before(self, one: OneStack) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> Any:
            if not self.forward:  # what checkpointing computes again is part of the backward pass
                return None
            node, (x, *others) = self.queues[module][0], args
            self.unfinished[one.prefix] += 1
            if x.requires_grad:
                (x,) = _mark(lambda: self._left(one), x)
            self.enters(node, x)
            self.begin(node)
            return (x, *others)

        return hook

    def _after(self, one: OneStack) -> Any:
        def hook(module: nn.Module, args: Any, out: Any) -> Any:
            if not self.forward:
                return None
            node = self.queues[module].pop(0)
            self.begin(BETWEEN if any(self.queues[other] for other in one.calls()) else one.end)
            stream, update = out[:2]
            if not stream.requires_grad:
                return None
            stream, update = _mark(lambda: self.begin(node), stream, update)
            return out._replace(stream=stream, update=update) if hasattr(out, "_replace") else (stream, update)

        return hook

    def _left(self, one: OneStack) -> None:
        self.unfinished[one.prefix] -= 1
        self.begin(BETWEEN if self.unfinished[one.prefix] else one.start)
