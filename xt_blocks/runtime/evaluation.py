"""A model in evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """No dropout and no gradients inside; every module's mode is as it was afterwards."""
    with evaluating_all([*net.modules()]):
        yield


@contextmanager
def evaluating_all(modules: Sequence[nn.Module]) -> Iterator[None]:
    """The same of modules that are listed already."""
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
