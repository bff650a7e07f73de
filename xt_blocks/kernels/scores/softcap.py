"""Soft-capped scores, c · tanh(score / c), which are bounded by c (Gemma 2, arXiv:2408.00118)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .spec import FlexForm, Modifier, ScoreStage, TileStep


def softcap(o: Any) -> Modifier:
    """The option `softcap`, of an attention block's options."""
    return Softcap(float(o.softcap))


@dataclass(frozen=True)
class Softcap(Modifier):
    """Each score s becomes c · tanh(s / c), before positions bias it."""

    c: float

    name = "softcap"
    stage = ScoreStage.SCORES
    in_flex = True

    def apply(self, x: Tensor) -> Tensor:
        return (x / self.c).tanh() * self.c

    def tile(self, x: Tensor, step: TileStep) -> Tensor:
        if not step.has_gradient:
            return x.div_(self.c).tanh_().mul_(self.c)
        share = x.div(self.c).tanh_()
        step.save(share)
        return share * self.c

    def tile_gradient(self, grad: Tensor, step: TileStep) -> Tensor:
        (share,) = step.saved
        return grad.addcmul_(grad * share, share, value=-1)

    def flex(self, q: Tensor) -> FlexForm:
        c = q.new_full((q.shape[1],), self.c)
        return FlexForm(score=lambda score, head: (score / c[head]).tanh() * c[head])
