"""Top-k scores per query: all others are masked (Zhao et al., arXiv:1912.11637)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .spec import Modifier, ScoreStage, TileStep


def sparse_topk(o: Any) -> Modifier:
    """The option `sparse_topk`, of an attention block's options."""
    return TopK(o.sparse_topk)


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


def only(scores: Tensor, chosen: Tensor) -> Tensor:
    """Scores (..., j) with all but the `chosen: (..., k)` int of each row at -inf."""
    return torch.full_like(scores, float("-inf")).scatter(-1, chosen, scores.gather(-1, chosen))
