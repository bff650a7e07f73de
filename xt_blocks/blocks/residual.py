"""Where a branch joins the residual stream, or several of them.

batch, seq: rows and tokens · dim: features · streams: residual streams, where there are several
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualConnection(nn.Module):
    """Adds a branch's update to the residual, which may be scaled first; or a GRU cell decides between the two.

    Args:
        dim: features of the stream.
        scale: a learned gain for each feature of the residual, initially one (NormFormer, arXiv:2110.09456).
        constant: a fixed factor of the residual (DeepNet, arXiv:2203.00555); 0: the update alone is the new stream.
        gate: a GRU cell reads the update, with the residual as its state (GTrXL, arXiv:1910.06764).

    Attributes:
        adds: whether it only adds, so that the stream gains exactly the update.
    """

    def __init__(self, dim: int, scale: bool = False, constant: float = 1.0, gate: bool = False) -> None:
        super().__init__()
        self.constant = float(constant)
        self.scale = nn.Parameter(torch.ones(dim)) if scale else None
        self.gate = nn.GRUCell(dim, dim) if gate else None
        self.adds = not (scale or gate) and self.constant == 1.0

    def forward(self, update: Tensor, x: Tensor) -> Tensor:
        """`update, x: (batch, seq, dim)`, the branch's and the stream's → (batch, seq, dim)."""
        if self.constant == 0:
            return update
        if self.scale is not None:
            x = x * self.scale
        if self.constant != 1.0:
            x = x * self.constant
        if self.gate is None:
            return update + x
        joined = self.gate(update.flatten(0, 1), x.flatten(0, 1))  # each token by itself
        return joined.unflatten(0, update.shape[:2])


def orthogonal(update: Tensor, x: Tensor) -> Tensor:
    """`update: (batch, seq, dim)` without its part along `x: (batch, seq, dim)`, for each token by itself.

    Oh et al., arXiv:2505.11881: a branch then adds only what the stream does not have.
    """
    exact = torch.promote_types(update.dtype, torch.float32)
    along, wide = x.to(exact), update.to(exact)
    share = (wide * along).sum(dim=-1, keepdim=True) / (along.square().sum(dim=-1, keepdim=True) + 1e-6)
    return (wide - share * along).to(update.dtype)


class HyperConnection(nn.Module):
    """What a block reads of several residual streams, and how it mixes them; weights follow from each token.

    Zhu et al., arXiv:2409.19606, in the dynamic form. A weight is a learned number plus one that follows from the
    stream. Where they are free, a block at first reads a single stream, mixes none, and adds its update to all.

    Args:
        dim: features of a stream.
        streams: how many there are.
        first: the stream that the block reads at first; blocks take turns.
        mix: "sinkhorn": each new stream is a mix of all by weights that are doubly stochastic; what a block reads has
            weights from 0 to 1, and its update from 0 to 2 (mHC, arXiv:2512.24880). "free": no weight is constrained.
            "sum": as the first, but each new stream is the sum of all, as in x-transformers 2.31.
        iterations: of Sinkhorn.
    """

    def __init__(self, dim: int, streams: int, first: int = 0, mix: str = "sinkhorn", iterations: int = 5) -> None:
        super().__init__()
        self.mix, self.iterations = mix, iterations
        self.norm = nn.LayerNorm(dim, bias=False)
        self.alpha = nn.Parameter(torch.eye(streams)[:, [first % streams, *range(streams)]])
        self.alpha_by_token = nn.Parameter(torch.zeros(dim, 1 + streams))
        self.alpha_scale = nn.Parameter(torch.full((), 0.01))
        self.beta = nn.Parameter(torch.ones(streams))
        self.beta_by_token = nn.Parameter(torch.zeros(dim))
        self.beta_scale = nn.Parameter(torch.full((), 0.01))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`x: (batch, seq, streams, dim)` → what the branch reads, (batch, seq, dim); the new streams,
        (batch, seq, streams, dim); and the weight of its update in each, (batch, seq, streams)."""
        normed = self.norm(x)
        alpha, beta = normed @ self.alpha_by_token, normed @ self.beta_by_token
        if self.mix == "free":
            alpha = self.alpha + self.alpha_scale * alpha.tanh()
            beta = self.beta + self.beta_scale * beta.tanh()
        else:
            alpha = self.alpha + self.alpha_scale * alpha
            read, mix = alpha[..., :1].sigmoid(), alpha[..., 1:]
            mix = torch.ones_like(mix) if self.mix == "sum" else doubly_stochastic(mix, self.iterations)
            alpha = torch.cat((read, mix), dim=-1)
            beta = 2 * (self.beta + self.beta_scale * 2 * beta.sigmoid()).sigmoid()
        out = alpha.transpose(-1, -2) @ x
        return out[..., 0, :], out[..., 1:, :], beta

    @staticmethod
    def join(update: Tensor, streams: Tensor, beta: Tensor) -> Tensor:
        """`update: (batch, seq, dim)` and the others as `forward` gives them → (batch, seq, streams, dim)."""
        return streams + update[..., None, :] * beta[..., None]


def doubly_stochastic(logits: Tensor, iterations: int) -> Tensor:
    """`(..., n, n)` → positive, and after enough iterations of Sinkhorn-Knopp each row and column sums to one."""
    out = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=-2)
    for _ in range(iterations):
        out = out / out.sum(dim=-1, keepdim=True)
        out = out / out.sum(dim=-2, keepdim=True)
    return out.to(logits.dtype)


class ResidualStreams(nn.Module):
    """Copies a stream to several, with a learned vector, at first zero, added to each."""

    def __init__(self, dim: int, streams: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(streams, dim))

    def forward(self, x: Tensor) -> Tensor:
        """`x: (batch, seq, dim)` → (batch, seq, streams, dim)"""
        return x[..., None, :] + self.weight
