"""Dropout of the attention weights in training (Srivastava et al., JMLR 15, 2014)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..batch_rows import draws_by_row, kept_by_row
from .spec import Modifier, ScoreStage, TileStep


class WeightDropout(nn.Dropout):
    """The option `dropout`: acts in training alone. Code that looks for dropout to change finds it by its type.

    Args:
        o: the options of an attention block.
    """

    def __init__(self, o: Any) -> None:
        super().__init__(float(o.dropout))

    def forward(self) -> tuple[Modifier, ...]:  # type: ignore[override]
        return (Dropout(self.p),) if self.training and self.p else ()


@dataclass(frozen=True)
class Dropout(Modifier):
    """Each weight is zeroed with probability p; the others are divided by 1 - p."""

    p: float

    name = "dropout"
    stage = ScoreStage.WEIGHTS
    scales = True

    def apply(self, x: Tensor) -> Tensor:
        kept = kept_by_row(x.shape, self.p, x.device, tokens=2, keys=3)
        return F.dropout(x, self.p) if kept is None else x * kept / (1 - self.p)

    def unreadable(self) -> str | None:
        return "what is dropped is drawn for each row at once" if draws_by_row() else None

    def tile(self, x: Tensor, step: TileStep) -> Tensor:
        kept = step.once(lambda: torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - self.p))
        if not step.has_gradient:
            return x.mul_(kept).div_(1 - self.p)
        share = kept.to(x.dtype).div_(1 - self.p)
        step.save(share)
        return x * share

    def tile_gradient(self, grad: Tensor, step: TileStep) -> Tensor:
        (share,) = step.saved
        return grad.mul_(share)
