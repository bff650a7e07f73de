"""What every library's model can be asked for."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..setting import Setting

if TYPE_CHECKING:
    from blockdsl import BlockGraph


class LeftOut(Exception):
    """A contestant does not take part; the message says why."""


class Contestant:
    """A decoder over tokens, and how its library trains it, runs it and generates with it.

    Attributes:
        net: the model, with all its parameters.
        graph: of our models; what they cost is read off it.
    """

    net: nn.Module
    graph: BlockGraph | None = None

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def placed(self, net: nn.Module) -> Any:
        return net.to(self.setting.device, self.setting.weights)

    def logits(self, tokens: Tensor) -> Tensor:
        """`tokens: (batch, seq)` → (batch, seq, vocabulary)."""
        return self.net(tokens)

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean cross-entropy of the last seq of `tokens: (batch, seq + 1)`."""
        return F.cross_entropy(self.logits(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    def generate(self, prompt: Tensor, new: int) -> Tensor:
        """(batch, new) likeliest tokens after `prompt: (batch, seq)`, keys and values cached."""
        raise NotImplementedError

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.net.parameters())


def imported(module: str, library: str) -> ModuleType:
    """The module.

    Raises:
        LeftOut: it is not installed, or does not import.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module:
            raise LeftOut(f"{library} is not installed") from None
        raise LeftOut(f"{library} does not import: {error}") from None
    except ImportError as error:
        raise LeftOut(f"{library} does not import: {error}") from None
