"""Sigmoid attention: each weight is the sigmoid of its score, whatever the others are (arXiv:2409.04431)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .spec import Modifier, ScoreStage, TileStep


def sigmoid(o: Any) -> Modifier:
    """The option `sigmoid`, of an attention block's options."""
    return Sigmoid()


class Sigmoid(Modifier):
    """1 / (1 + exp(-score)); a masked score at -inf has no weight."""

    name = "sigmoid"
    stage = ScoreStage.SOFTMAX

    def apply(self, x: Tensor) -> Tensor:
        return x.sigmoid()

    def tile(self, x: Tensor, step: TileStep) -> Tensor:
        weights = x.sigmoid()
        step.save(weights)
        return weights

    def tile_gradient(self, grad: Tensor, step: TileStep) -> Tensor:
        (weights,) = step.saved
        return grad.mul_(weights).mul_(1 - weights)
