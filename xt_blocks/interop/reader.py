"""Reading a state dict tensor by tensor, keeping track of what is missing and what is unused."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Reader:
    """Tensors by name; it tracks which were used and which are missing.

    Args:
        state: names → tensors.
        old: whether they are of release 1.x.
        prefix: put before every requested name.
    """

    def __init__(self, state: Mapping[str, Tensor], old: bool, prefix: str = "") -> None:
        self.state, self.old, self.prefix = state, old, prefix
        self.used: set[str] = set()
        self.missing: list[str] = []
        self.wrong: list[str] = []

    def under(self, prefix: str) -> Reader:
        """A reader of the names with this prefix, sharing this one's records."""
        inner = Reader(self.state, self.old, self.prefix + prefix)
        inner.used, inner.missing, inner.wrong = self.used, self.missing, self.wrong
        return inner

    def has(self, name: str) -> bool:
        return self.prefix + name in self.state

    def names(self, start: str) -> list[str]:
        """Names that start with `start`, without this reader's prefix."""
        return [name.removeprefix(self.prefix) for name in self.state if name.startswith(self.prefix + start)]

    def take(self, *names: str) -> Tensor | None:
        """The first of these that is there, or None."""
        for name in names:
            if self.has(name):
                self.used.add(self.prefix + name)
                return self.state[self.prefix + name]
        return None

    def need(self, *names: str) -> Tensor | None:
        """As `take`; if there is none, the first name is recorded as missing."""
        found = self.take(*names)
        if found is None:
            self.missing.append(self.prefix + names[0])
        return found

    def skip(self, name: str) -> None:
        """A tensor that the other library has and never uses."""
        self.take(name)

    def fill(self, parameter: Tensor | None, value: Tensor | None, name: str) -> None:
        """Copy a value; a size mismatch is recorded, and so is a value for a parameter that is None."""
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
