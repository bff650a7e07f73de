"""What is done to scores by the options that need them in hand.

Axes: b batch, h heads, i queries, j keys.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TalkingHeads(nn.Module):
    """Heads exchange scores before the softmax and weights behind it (Shazeer et al., arXiv:2003.02436)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.before = nn.Parameter(torch.empty(heads, heads))
        self.behind = nn.Parameter(torch.empty(heads, heads))
        for weight in (self.before, self.behind):
            nn.init.kaiming_uniform_(weight, a=5**0.5)

    def mix_scores(self, scores: Tensor) -> Tensor:
        """(b, h, i, j) → (b, h, i, j)"""
        return torch.einsum("gh, bhij -> bgij", self.before.to(scores.dtype), scores)

    def mix_weights(self, weights: Tensor) -> Tensor:
        """(b, h, i, j) → (b, h, i, j)"""
        return torch.einsum("gh, bhij -> bgij", self.behind.to(weights.dtype), weights)


def keep_largest(scores: Tensor, k: int) -> Tensor:
    """Scores with all but the k largest of each row at -inf (Zhao et al., arXiv:1912.11637).

    Exactly k, ties or not; a row no longer than k stays as it is. (b, h, i, j) → the same.
    """
    keys = scores.shape[-1]
    if torch.compiler.is_compiling():  # room for k, whatever the length: a graph then needs no bound on it
        scores = F.pad(scores, (0, k), value=float("-inf"))
    elif k >= keys:
        return scores
    return only(scores, scores.topk(k, dim=-1).indices)[..., :keys]


def only(scores: Tensor, chosen: Tensor) -> Tensor:
    """Scores (..., j) with all but the `chosen: (..., k)` int of each row at -inf."""
    return torch.full_like(scores, float("-inf")).scatter(-1, chosen, scores.gather(-1, chosen))
