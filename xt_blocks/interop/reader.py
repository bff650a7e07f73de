"""Reading a state dict tensor by tensor: what was read, what is amiss, and what the model gets once all is well.

Nothing is written before `commit`, so a load that is refused leaves the model as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .names import LAST_OF_1, Release


@dataclass
class Record:
    """What has been read, shared by all readers of one load.

    Attributes:
        used: names that were read.
        missing, wrong: names that are not there, and tensors that do not fit, in words.
        refused, warned: how the model differs from the other library's, in words.
        values: id of a parameter → it, its new value and the name that this was read from.
        changes: what else is done to the model and its graphs.
        dropped: ids of parameters whose module is replaced.
    """

    used: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    refused: dict[str, None] = field(default_factory=dict)
    warned: dict[str, None] = field(default_factory=dict)
    values: dict[int, tuple[Tensor, Tensor, str]] = field(default_factory=dict)
    changes: list[Callable[[], None]] = field(default_factory=list)
    dropped: set[int] = field(default_factory=set)


class Reader:
    """Tensors by name.

    Args:
        state: names → tensors.
        release: that they are of, major and minor version.
        told: whether that was told from the names, which do not tell the minor version.
        prefix: put before every requested name.
        record: of the load; None: a new one.

    Attributes:
        old: of 1.x.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        release: Release,
        told: bool = False,
        prefix: str = "",
        record: Record | None = None,
    ) -> None:
        self.state, self.release, self.told, self.prefix = state, release, told, prefix
        self.old = release <= LAST_OF_1
        self.record = record or Record()

    def under(self, prefix: str) -> Reader:
        """A reader of the names with this prefix, sharing this one's record."""
        return Reader(self.state, self.release, self.told, self.prefix + prefix, self.record)

    # Reading ----------------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        return self.prefix + name in self.state

    def names(self, start: str) -> list[str]:
        """Names that start with `start`, without this reader's prefix."""
        return [name.removeprefix(self.prefix) for name in self.state if name.startswith(self.prefix + start)]

    def take(self, *names: str, shape: Sequence[int]) -> Tensor | None:
        """The first of these that is there, in float32 or better and of this shape; None: none is, or it does not fit.

        Sizes of one may be left out or added. What does not fit is recorded.
        """
        for name in names:
            if not self.has(name):
                continue
            value = self.state[self.prefix + name]
            self.record.used.add(self.prefix + name)
            if _sizes(value.shape) != _sizes(shape):
                self._wrong(name, f"{tuple(value.shape)}, the model's is {tuple(shape)}")
                return None
            if value.is_meta or not value.is_floating_point():
                self._wrong(name, "on the meta device" if value.is_meta else f"{value.dtype}, no type of a parameter")
                return None
            return value.detach().to(torch.promote_types(value.dtype, torch.float32)).reshape(tuple(shape))
        return None

    def need(self, *names: str, shape: Sequence[int]) -> Tensor | None:
        """As `take`; if there is none, the first name is recorded as missing."""
        if not any(self.has(name) for name in names):
            self.record.missing.append(self.prefix + names[0])
            return None
        return self.take(*names, shape=shape)

    def skip(self, name: str) -> None:
        """A tensor that the other library has and never uses."""
        if self.has(name):
            self.record.used.add(self.prefix + name)

    def unused(self) -> list[str]:
        return [name for name in self.state if name not in self.record.used]

    def _wrong(self, name: str, what: str) -> None:
        self.record.wrong.append(f"{self.prefix}{name} is {what}")

    def since(self, release: Release, option: str, what: str) -> bool:
        """Whether the weights are of this release or a later one; if the names alone say so, there is a warning.

        Args:
            what: such a release does with the option.
        """
        if self.told and not self.old:
            version = "{}.{}".format(*release)
            self.warn(f"{option}: read as of {version} or later, which {what}; if it is older, give its release=")
        return self.release >= release

    # What the model gets ----------------------------------------------------------------------------------------

    def fill(self, parameter: Tensor, *names: str) -> None:
        """Give a parameter the first of these tensors as it is."""
        self.put(parameter, self.need(*names, shape=parameter.shape), names[0])

    def put(self, parameter: Tensor, value: Tensor | None, name: str) -> None:
        """Give a parameter this value, which was made of the tensor `name` and has its shape; None: it had none."""
        if value is None:
            self.record.values.setdefault(id(parameter), (parameter, parameter, ""))  # recorded as missing already
            return
        known = self.record.values.get(id(parameter))
        value = value.reshape(parameter.shape)
        if known is not None and known[2] and not torch.equal(known[1], value.to(known[1].device)):
            both = f"{known[2]} and {self.prefix}{name}"
            self.warn(f"{both} differ, and are one parameter: the second one is loaded, as it is by x-transformers")
        if parameter.is_meta:
            self._wrong(name, "for a parameter on the meta device, which holds no numbers: use model.to_empty() first")
        else:
            self.record.values[id(parameter)] = parameter, value, self.prefix + name

    def replace(self, owner: nn.Module, name: str, module: nn.Module) -> None:
        """Put a module in another one's place."""
        self.record.dropped |= {id(parameter) for parameter in getattr(owner, name).parameters()}
        self.change(lambda: setattr(owner, name, module))

    def change(self, change: Callable[[], object]) -> None:
        """Do this to the model or its graphs when all has been read."""
        self.record.changes.append(lambda: (change(), None)[1])

    def set(self, attributes: Sequence[dict[str, Any]], **values: Any) -> None:
        """Change attributes of graph nodes, or options of blocks."""
        self.change(lambda: [each.update(values) for each in attributes])

    def refuse(self, why: str) -> None:
        """The other library computes something else than this model, whatever the parameters."""
        self.record.refused[why] = None

    def warn(self, what: str) -> None:
        """The weights are of use, but the other library computes something else than this model."""
        self.record.warned[what] = None

    def unfilled(self, model: nn.Module) -> list[str]:
        """Parameters of the model that nothing was read for."""
        known = self.record.values.keys() | self.record.dropped
        return [name for name, parameter in model.named_parameters() if id(parameter) not in known]

    @torch.no_grad()
    def commit(self) -> None:
        """Change the model."""
        for change in self.record.changes:
            change()
        for parameter, value, _ in self.record.values.values():
            parameter.copy_(value)


def _sizes(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]
