"""Talking heads: heads exchange scores before the softmax and weights after it (Shazeer et al., arXiv:2003.02436)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...blocks.aliases import old_names
from ..hooks import unhooked
from .spec import Modifier, ScoreStage, TileStep


class HeadMix(nn.Linear):
    """A linear layer over heads, (..., heads) → (..., heads)."""


class TalkingHeads(nn.Module):
    """The option `talking_heads`: a linear layer over heads before the softmax, and another one after it.

    Args:
        o: the options of an attention block.
    """

    def __init__(self, o: Any) -> None:
        super().__init__()
        self.before = HeadMix(o.heads, o.heads, bias=False)
        self.after = HeadMix(o.heads, o.heads, bias=False)
        old_names(self, {"before": "before.weight", "behind": "after.weight"})

    def forward(self) -> tuple[Modifier, ...]:
        return MixHeads.by(self.before, ScoreStage.SCORES), MixHeads.by(self.after, ScoreStage.WEIGHTS)


@dataclass(frozen=True, eq=False)
class MixHeads(Modifier):
    """Each head becomes a weighted sum of all heads.

    Args:
        layer: (..., heads) → (..., heads)
        stage: when.
        weight: (heads, heads), the layer's; None: it must not be read, and the layer is called.
    """

    layer: nn.Module
    stage: ScoreStage
    weight: Tensor | None

    name = "talking heads"
    mixes_heads = True

    @classmethod
    def by(cls, layer: nn.Module, stage: ScoreStage) -> MixHeads:
        """By an unhooked HeadMix, or by whatever module takes its place."""
        return cls(layer, stage, layer.weight if type(layer) is HeadMix and unhooked(layer) else None)

    def apply(self, x: Tensor) -> Tensor:
        if self.weight is None:
            out: Tensor = self.layer(x.movedim(1, -1)).movedim(-1, 1)
            return out
        return torch.einsum("gh, bhij -> bgij", self.weight.to(x.dtype), x)

    def tensors(self) -> tuple[Tensor, ...]:
        return () if self.weight is None else (self.weight,)

    def unreadable(self) -> str | None:
        if self.weight is not None:
            return None
        return "talking heads: a layer over heads is replaced or hooked, so it must be called"

    def tile(self, x: Tensor, step: TileStep) -> Tensor:
        step.save(x)
        return _mix(step.tensors[0], x)

    def tile_gradient(self, grad: Tensor, step: TileStep) -> Tensor:
        (x,), (weight,), (of_weight,) = step.saved, step.tensors, step.gradients
        if of_weight is not None:
            of_weight += grad.flatten(1) @ x.flatten(1).T
        return _mix(weight.T, grad)


def _mix(weight: Tensor, x: Tensor) -> Tensor:
    """`weight: (heads, heads)` applied to the heads of `x: (h, i, j)`."""
    return (weight @ x.flatten(1)).view_as(x)
