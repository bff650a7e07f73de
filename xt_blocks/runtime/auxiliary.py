"""Losses that blocks add in training, such as the balance of experts: from the passes to whoever trains.

    with auxiliary_losses() as losses:
        logits = model(images)
    loss = F.cross_entropy(logits, labels) + losses.total()

A layer returns them beside its update (`blocks.layer_output.LayerOutput`), a stack hands those of its blocks to every
`auxiliary_losses()` that is open around its pass, and a wrapper that computes a loss adds them. So they can be looked
at from outside a wrapper too, which has added them already.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Losses = Mapping[str, Mapping[str, Tensor]]
"""Node → name → loss."""


class AuxiliaryLosses:
    """The losses of the passes inside an `auxiliary_losses()`.

    Attributes:
        passes: each pass with gradients of a stack in training whose blocks had any, with its losses by node and name.
    """

    def __init__(self) -> None:
        self.passes: list[tuple[nn.Module, Losses]] = []

    def by_name(self) -> dict[str, Tensor]:
        """Name → the sum over blocks. Of a stack that ran several times, as on segments of a text, the mean counts."""
        ran = [stack for stack, _ in self.passes]
        sums: dict[str, Tensor] = {}
        for stack, losses in self.passes:
            times = sum(other is stack for other in ran)
            for of_node in losses.values():
                for name, loss in of_node.items():
                    share = loss if times == 1 else loss / times
                    sums[name] = sums[name] + share if name in sums else share
        return sums

    def total(self) -> Tensor | float:
        """Their sum; 0 where there are none."""
        return sum(self.by_name().values(), 0.0)

    def added_to(self, loss: Tensor) -> Tensor:
        """`loss` and their sum."""
        return loss + self.total() if self.passes else loss


class _Open(threading.local):
    """Those that are open in a thread; not a ContextVar, which torch's compiler does not read."""

    def __init__(self) -> None:
        self.all: list[AuxiliaryLosses] = []


_OPEN = _Open()


@contextmanager
def auxiliary_losses() -> Iterator[AuxiliaryLosses]:
    """Inside, the losses of all passes of stacks are kept."""
    losses = AuxiliaryLosses()
    _OPEN.all.append(losses)
    try:
        yield losses
    finally:
        _OPEN.all.remove(losses)


def hand_out(stack: nn.Module, losses: Losses) -> None:
    """Give the losses of a pass to all that are open."""
    if torch.is_grad_enabled():
        for one in _OPEN.all:
            one.passes.append((stack, losses))
