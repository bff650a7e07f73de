"""The softmax from scores to weights, unless a modifier takes its place."""

from __future__ import annotations

from torch import Tensor

from .spec import Modifier, ScoreSpec, ScoreStage, TileStep


class Softmax(Modifier):
    """exp(score) over the sum of the row's."""

    name = "softmax"
    stage = ScoreStage.SOFTMAX

    def apply(self, x: Tensor) -> Tensor:
        return x.softmax(dim=-1)

    def tile(self, x: Tensor, step: TileStep) -> Tensor:
        weights = no_rows(x.softmax(dim=-1), step.empty)
        step.save(weights)
        return weights

    def tile_gradient(self, grad: Tensor, step: TileStep) -> Tensor:
        (weights,) = step.saved
        return grad.sub_(row_sums(grad, weights, step)).mul_(weights)


def no_rows(weights: Tensor, empty: Tensor | None) -> Tensor:
    """The weights, with zeros in the rows that are `empty: (h, i, 1)`, in place."""
    return weights if empty is None else weights.masked_fill_(empty, 0.0)


def row_sums(grad: Tensor, weights: Tensor, step: TileStep) -> Tensor:
    """(h, i, 1), Σ_j of each weight times its gradient."""
    return (grad * weights).sum(dim=-1, keepdim=True) if step.row_sums is None else step.row_sums


_SOFTMAX = Softmax()


def softmax_of(spec: ScoreSpec) -> Modifier:
    """The modifier that makes the weights."""
    own = spec.at(ScoreStage.SOFTMAX)
    return own[0] if own else _SOFTMAX
