"""A context manager for evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """No dropout and no gradients inside; restores every module's mode after it."""
    with evaluating_all([*net.modules()]):
        yield


@contextmanager
def evaluating_all(modules: Sequence[nn.Module]) -> Iterator[None]:
    """The same for a list of modules."""
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
