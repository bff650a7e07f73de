"""A context manager for evaluation mode.

Threads may share a model: a module returns to training mode when the last of them has finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from weakref import WeakKeyDictionary

import torch
from torch import nn

_LOCK = Lock()
_USERS: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()  # of the modules that return to training mode


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """No dropout and no gradients inside; restores every module's mode afterwards."""
    with evaluating_all([*net.modules()]):
        yield


@contextmanager
def evaluating_all(modules: Sequence[nn.Module]) -> Iterator[None]:
    """The same for a list of modules."""
    with _LOCK:
        switched = [module for module in modules if module.training or module in _USERS]
        for module in switched:
            module.training = False
            _USERS[module] = _USERS.get(module, 0) + 1
    try:
        with torch.no_grad():
            yield
    finally:
        with _LOCK:
            for module in switched:
                _USERS[module] -= 1
                if not _USERS[module]:
                    del _USERS[module]
                    module.training = True
