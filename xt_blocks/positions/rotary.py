"""Rotary positions (Su et al., arXiv:2104.09864): queries and keys rotated by angles that grow with position.

Scores depend on differences of positions only. Angles are computed in float32 whatever the module's dtype: in low
precision, distant positions become equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..kernels import onednn

BASE = 10_000.0


@dataclass(frozen=True)
class Rotation:
    """The rotation of each token; features i and i + dim/2 are rotated together.

    Attributes:
        cos: (keys, dim) or (batch, 1, keys, dim) float32, factor of the feature itself.
        sin: of the same shape, factor of the feature it is rotated with; negative for the first half.
        decay: xPos's factors of queries, of the same shape; keys are divided by them. None: plain rotary.
    """

    cos: Tensor
    sin: Tensor
    decay: Tensor | None = None
    _matrices: dict[int, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def both(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """`apply` to queries and keys; for a single token, where call overhead dominates, one matrix product."""
        if q.shape[2] == k.shape[2] == 1 and self.cos.ndim == 2 and _exact(q):
            q, k = (torch.cat((q, k), dim=1) @ self._matrix(q.shape[3])).split_with_sizes((q.shape[1], k.shape[1]), 1)
            return q, k
        return self.apply(q), self.apply(k)

    def _matrix(self, features: int) -> Tensor:
        """(features, features), the rotation of the last token as a matrix."""
        if features not in self._matrices:
            dim = self.cos.shape[-1]
            matrix = torch.eye(features, device=self.cos.device, dtype=self.cos.dtype)
            matrix[:dim, :dim] = self.cos[-1].diag() + self.sin[-1].diag().roll(dim // 2, dims=0)
            self._matrices[features] = matrix
        return self._matrices[features]

    def apply(self, x: Tensor) -> Tensor:
        """Rotate the first `dim` features of the last tokens, `x: (batch, heads, seq, features)`; the others stay."""
        cos, sin = _last(self.cos, x.shape[-2]), _last(self.sin, x.shape[-2])
        dim = cos.shape[-1]
        own = x if x.shape[-1] == dim else x[..., :dim]
        first, second = own.chunk(2, dim=-1)
        # a product with float32 is float32, or float64: low-precision features are not rounded in between
        rotated = (own * cos + torch.cat((second, first), dim=-1) * sin).to(x.dtype)
        return rotated if own is x else torch.cat((rotated, x[..., dim:]), dim=-1)

    def decayed(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Rotated queries and keys with xPos's decay (Sun et al., arXiv:2212.10554).

        Separate from the rotation, because the factors are centred on all current tokens, which keeps them small, and
        a cached key cannot know that centre. They overflow float16, which becomes float32.
        """
        if self.decay is None:
            return q, k
        return _scaled(q, _last(self.decay, q.shape[-2])), _scaled(k, 1 / _last(self.decay, k.shape[-2]))


@dataclass(frozen=True)
class Rotary:
    """What a rotary position node of a graph says, by the same names; `blockdsl.registry.rotary` declares them.

    Attributes:
        dim: how many features of a head are rotated; even.
        theta: features i and i + dim/2 are rotated by the position times theta^(-2i/dim).
        xpos_scale_base: distance over which xPos decays by one step; None: no decay.
    """

    dim: int
    theta: float = BASE
    xpos_scale_base: int | None = None

    @property
    def of_all_keys(self) -> bool:
        """Whether a rotation is of all keys, and not of the new tokens alone."""
        return self.xpos_scale_base is not None

    def frequencies(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Tensor:
        """(dim / 2,): the angle by which one position rotates each pair of features."""
        return 1 / self._periods(device, dtype)

    def _periods(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Tensor:
        """(dim / 2,): one over the frequencies."""
        steps = torch.arange(0, self.dim, 2, device=device, dtype=dtype)
        return self.theta ** (steps / self.dim)

    def rotation(self, positions: Tensor) -> Rotation:
        """The rotation of tokens at these positions, (keys,) or (batch, keys); `of_all_keys` or of new tokens."""
        where = positions.to(torch.float32)[..., None]
        if where.ndim == 3:
            where = where[:, None]  # every head
        angles = where / self._periods(where.device)
        decay = None
        if self.xpos_scale_base is not None:
            centre = (where[..., :1, :] + where[..., -1:, :]) / 2
            steps = torch.arange(0, self.dim, 2, device=where.device, dtype=torch.float32)
            decay = ((steps + 0.4 * self.dim) / (1.4 * self.dim)) ** ((where - centre) / self.xpos_scale_base)
            decay = torch.cat((decay, decay), dim=-1)
        cos, sin = angles.cos(), angles.sin()
        return Rotation(torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1), decay)


def _exact(x: Tensor) -> bool:
    """Whether a matrix product is in full float32 (no TF32 on a GPU, no autocast), with nothing counting its FLOPs."""
    return not torch.compiler.is_compiling() and x.is_cpu and x.dtype == torch.float32 and not onednn.followed()


def _last(x: Tensor, count: int) -> Tensor:
    return x if x.shape[-2] == count else x[..., x.shape[-2] - count :, :]


def _scaled(x: Tensor, factor: Tensor) -> Tensor:
    dtype = torch.float32 if x.dtype == torch.float16 else x.dtype
    rotated = factor.shape[-1]
    return torch.cat(((x[..., :rotated] * factor).to(dtype), x[..., rotated:].to(dtype)), dim=-1)
