"""A state dict that is read tensor by tensor, and what is left over or was not there."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Reader:
    """Tensors by name; it remembers which were read and which were asked for in vain.

    Args:
        state: names → tensors.
        old: whether they are of release 1.x.
        prefix: in front of every name that is asked for.
    """

    def __init__(self, state: Mapping[str, Tensor], old: bool, prefix: str = "") -> None:
        self.state, self.old, self.prefix = state, old, prefix
        self.used: set[str] = set()
        self.missing: list[str] = []
        self.wrong: list[str] = []

    def under(self, prefix: str) -> Reader:
        """The names that start so, with one record for all."""
        inner = Reader(self.state, self.old, self.prefix + prefix)
        inner.used, inner.missing, inner.wrong = self.used, self.missing, self.wrong
        return inner

    def has(self, name: str) -> bool:
        return self.prefix + name in self.state

    def names(self, start: str) -> list[str]:
        """Those that start so, without this reader's prefix."""
        return [name.removeprefix(self.prefix) for name in self.state if name.startswith(self.prefix + start)]

    def take(self, *names: str) -> Tensor | None:
        """The first of these that there is."""
        for name in names:
            if self.has(name):
                self.used.add(self.prefix + name)
                return self.state[self.prefix + name]
        return None

    def need(self, *names: str) -> Tensor | None:
        """The same; without one its first name is noted as missing."""
        found = self.take(*names)
        if found is None:
            self.missing.append(self.prefix + names[0])
        return found

    def skip(self, name: str) -> None:
        """A tensor that the other library has and never uses."""
        self.take(name)

    def fill(self, parameter: Tensor | None, value: Tensor | None, name: str) -> None:
        """Copy a value; one of another size is noted. Where the parameter is None there must be no value."""
        if value is None:
            return
        if parameter is None or parameter.numel() != value.numel():
            ours = "none" if parameter is None else tuple(parameter.shape)
            self.wrong.append(f"{self.prefix}{name} is {tuple(value.shape)}, the model's is {ours}")
            return
        with torch.no_grad():
            parameter.copy_(value.reshape(parameter.shape))

    def unused(self) -> list[str]:
        return [name for name in self.state if name not in self.used]
