"""Top-k scores per query: all others are masked (Zhao et al., arXiv:1912.11637), perhaps with a gradient even so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .softmax import no_rows
from .spec import Modifier, ScoreStage, TileStep


def sparse_topk(o: Any) -> Modifier:
    """The options `sparse_topk` and `sparse_topk_straight_through`, of an attention block's options."""
    return StraightThrough(o.sparse_topk) if o.sparse_topk_straight_through else TopK(o.sparse_topk)


@dataclass(frozen=True)
class TopK(Modifier):
    """All but the k largest scores of a row at -inf: exactly k, ties or not; a row no longer than k stays as it is."""

    k: int

    name = "top-k scores per query"
    stage = ScoreStage.MASKED

    def apply(self, x: Tensor) -> Tensor:
        keys = x.shape[-1]
        if torch.compiler.is_compiling():  # space for k, whatever the length: a graph then needs no bound on it
            x = F.pad(x, (0, self.k), value=float("-inf"))
        elif self.k >= keys:
            return x
        return only(x, x.topk(self.k, dim=-1).indices)[..., :keys]

    def tile(self, x: Tensor, step: TileStep) -> Tensor:
        k = min(self.k, x.shape[-1])
        return only(x, step.once(lambda: x.topk(k, dim=-1, sorted=False).indices))

    def tile_gradient(self, grad: Tensor, step: TileStep) -> Tensor:
        return grad  # a score at -inf has a weight of zero, and so no gradient


@dataclass(frozen=True)
class StraightThrough(Modifier):
    """The softmax of the k largest scores, with the gradient of the softmax of all of them (arXiv:2505.22074)."""

    k: int

    name = "straight-through top-k scores"
    stage = ScoreStage.SOFTMAX

    def apply(self, x: Tensor) -> Tensor:
        weights, soft = TopK(self.k).apply(x).softmax(dim=-1), x.softmax(dim=-1)
        return weights.detach() + (soft - soft.detach())

    def tile(self, x: Tensor, step: TileStep) -> Tensor:
        weights = TopK(self.k).tile(x, step).softmax(dim=-1)
        step.save(no_rows(x.softmax(dim=-1), step.empty))
        return no_rows(weights, step.empty)

    def tile_gradient(self, grad: Tensor, step: TileStep) -> Tensor:
        (soft,) = step.saved
        return grad.sub_((grad * soft).sum(dim=-1, keepdim=True)).mul_(soft)


def only(scores: Tensor, chosen: Tensor) -> Tensor:
    """Scores (..., j) with all but the `chosen: (..., k)` int of each row at -inf."""
    return torch.full_like(scores, float("-inf")).scatter(-1, chosen, scores.gather(-1, chosen))
