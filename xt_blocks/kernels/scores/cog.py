"""Cog attention: weights with the signs of their scores (Lv et al., arXiv:2411.07176)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .softmax import no_rows, row_sums
from .spec import Modifier, ScoreStage, TileStep


def cog(o: Any) -> Modifier:
    """The option `cog_signed`, of an attention block's options."""
    return SignedSoftmax()


class SignedSoftmax(Modifier):
    """exp(|score|) over the sum of the row's, with the score's sign; a masked score at -inf has no weight."""

    name = "signed weights"
    stage = ScoreStage.SOFTMAX

    def apply(self, x: Tensor) -> Tensor:
        return x.abs().where(x > float("-inf"), float("-inf")).softmax(dim=-1) * x.sign()

    def tile(self, x: Tensor, step: TileStep) -> Tensor:
        weights = no_rows(self.apply(x), step.empty)
        step.save(weights)
        return weights

    def tile_gradient(self, grad: Tensor, step: TileStep) -> Tensor:
        (weights,) = step.saved
        sums = row_sums(grad, weights, step)
        return grad.mul_(weights.abs()).sub_(weights * sums)
