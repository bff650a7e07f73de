"""AdamW, or Muon with AdamW, set up for small language models.

Owns the parameter groups and the choice of the fused kernel. Leaves the learning rate to `schedule`, and the arithmetic
to torch.optim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from ..runtime.stack import Stack

BETAS = (0.9, 0.99)
"""The second is longer than large batches want: a step here sees few bytes."""

WEIGHT_DECAY = 0.1


class Optimizers:
    """Several optimisers, each of its own parameters, as one."""

    def __init__(self, *each: torch.optim.Optimizer) -> None:
        self.each = each

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for one in self.each for group in one.param_groups]

    def step(self) -> None:
        for one in self.each:
            one.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for one in self.each:
            one.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"each": [one.state_dict() for one in self.each]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for one, own in zip(self.each, state["each"], strict=True):
            one.load_state_dict(own)


Optimizer = torch.optim.Optimizer | Optimizers


def optimizers_of(optimizer: Optimizer) -> tuple[torch.optim.Optimizer, ...]:
    """torch's own, of which it is made."""
    return optimizer.each if isinstance(optimizer, Optimizers) else (optimizer,)


def make_optimizer(
    model: nn.Module, lr: float, name: str = "adamw", muon: Callable[..., torch.optim.Optimizer] | None = None
) -> Optimizer:
    """The optimiser of the trained parameters. Weight decay is for matrices only, as pulling a gain or a bias towards
    zero does not simplify what the model computes.

    Args:
        name: "adamw" (arXiv:1711.05101); or "muon" (arXiv:2502.16982), for matrices of blocks, with AdamW for the rest.
            Its updates are scaled to the size of AdamW's, so that one learning rate serves both.
        muon: what makes it, of matrices and the options of torch.optim.Muon; None: that.
    """
    if name == "adamw":
        return _adamw(model.named_parameters(), lr)
    inside = {id(p) for p in _inside_blocks(model) if p.requires_grad and p.ndim == 2}
    matrices = [(name, p) for name, p in model.named_parameters() if id(p) in inside]
    make = torch.optim.Muon if muon is None else muon
    inside_blocks = make(matrices, lr=lr, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw")
    rest = ((name, p) for name, p in model.named_parameters() if id(p) not in inside)
    return Optimizers(inside_blocks, _adamw(rest, lr))


def _inside_blocks(model: nn.Module) -> Iterable[nn.Parameter]:
    for stack in model.modules():
        if isinstance(stack, Stack):
            yield from stack.blocks.parameters()


def _adamw(parameters: Iterable[tuple[str, nn.Parameter]], lr: float) -> torch.optim.AdamW:
    trained = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [(name, p) for name, p in trained if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [(name, p) for name, p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    try:
        return torch.optim.AdamW(groups, lr=lr, betas=BETAS, fused=True)
    except RuntimeError:  # this device has no fused kernel
        return torch.optim.AdamW(groups, lr=lr, betas=BETAS)
