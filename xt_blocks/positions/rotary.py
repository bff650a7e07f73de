"""Rotary positions (Su et al., arXiv:2104.09864): queries and keys rotated by angles that grow with position.

Scores depend on differences of positions only. Angles are computed in float32 whatever the module's dtype: in low
precision, distant positions become equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from blockdsl.registry.rotary import BY_LENGTH

from ..kernels import onednn

BASE = 10_000.0


@dataclass(frozen=True)
class Rotation:
    """The rotation of each token; features i and i + dim/2 are rotated together, or neighbours.

    Attributes:
        cos: (keys, dim) or (batch, 1, keys, dim) float32, factor of the feature itself.
        sin: of the same shape, factor of the feature it is rotated with; negative for the first of each two.
        decay: xPos's factors of queries, of the same shape; keys are divided by them. None: plain rotary.
        interleaved: features 2i and 2i + 1 are rotated together.
        by_length: it changes with the length of the text, so that a cache keeps keys as they are before it.
    """

    cos: Tensor
    sin: Tensor
    decay: Tensor | None = None
    interleaved: bool = False
    by_length: bool = False
    _matrices: dict[int, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def before_cache(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys of new tokens as a cache keeps them."""
        return (q, k) if self.by_length else self.both(q, k)

    def after_cache(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries, and the keys of all tokens, as they attend to each other: with all that is still missing."""
        return self.decayed(*(self.both(q, k) if self.by_length else (q, k)))

    def queries(self, q: Tensor) -> Tensor:
        """Queries alone, as `before_cache` and `after_cache` make them."""
        rotated = self.apply(q)
        return rotated if self.decay is None else _scaled(rotated, _last(self.decay, q.shape[-2]))

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
            matrix[:dim, :dim] = self.cos[-1].diag() + self._partners(self.sin[-1].diag()).T
            self._matrices[features] = matrix
        return self._matrices[features]

    def apply(self, x: Tensor) -> Tensor:
        """Rotate the first `dim` features of the last tokens, `x: (batch, heads, seq, features)`; the others stay."""
        cos, sin = _last(self.cos, x.shape[-2]), _last(self.sin, x.shape[-2])
        dim = cos.shape[-1]
        own = x if x.shape[-1] == dim else x[..., :dim]
        # a product with float32 is float32, or float64: low-precision features are not rounded in between
        rotated = (own * cos + self._partners(own) * sin).to(x.dtype)
        return rotated if own is x else torch.cat((rotated, x[..., dim:]), dim=-1)

    def _partners(self, x: Tensor) -> Tensor:
        """`x: (..., dim)` with each feature replaced by the one that it is rotated with."""
        if self.interleaved:
            return x.reshape(*x.shape[:-1], x.shape[-1] // 2, 2).flip(-1).flatten(-2)  # of no token, too
        first, second = x.chunk(2, dim=-1)
        return torch.cat((second, first), dim=-1)

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

    What is none there is left out, or a default that its scaling does not read.
    The i-th of dim / 2 pairs of features is rotated by position · theta^(-2i/dim), unless a scaling changes that.
    """

    dim: int
    theta: float = BASE
    interleaved: bool = False
    scaling: str | None = None
    factor: float = 1.0
    original_len: int = 1
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None
    short_factors: Sequence[float] = ()
    long_factors: Sequence[float] = ()
    xpos_scale_base: int | None = None

    @property
    def by_length(self) -> bool:
        """Whether frequencies depend on how long the text is so far."""
        return self.scaling in BY_LENGTH

    def changes_at(self, length: int) -> bool:
        """Whether frequencies in a text of so many tokens are others than in one that is a token shorter."""
        first = self.original_len + 1
        return length >= first if self.scaling == "dynamic" else length == first and self.by_length

    @property
    def of_all_keys(self) -> bool:
        """Whether a rotation is of all keys, and not of the new tokens alone."""
        return self.by_length or self.xpos_scale_base is not None

    def rotation(self, positions: Tensor, seen: Tensor | None = None) -> Rotation:
        """The rotation of tokens at these positions.

        Args:
            positions: (keys,) or (batch, keys) int, of all keys or of new tokens, as `of_all_keys` says.
            seen: (batch, keys) bool, which of them are real, where frequencies depend on the length; None: all.
        """
        where = positions.to(torch.float32)[..., None]
        if where.ndim == 3:
            where = where[:, None]  # every head
        angles = where / self._periods(where.device, self._length(positions, seen))
        decay = None
        if self.xpos_scale_base is not None:
            centre = (where[..., :1, :] + where[..., -1:, :]) / 2
            steps = self._steps(where.device)
            decay = ((steps + 0.4 * self.dim) / (1.4 * self.dim)) ** ((where - centre) / self.xpos_scale_base)
            decay = self._paired(decay, decay)
        cos, sin = angles.cos(), angles.sin()
        if (gain := self._gain()) != 1:
            cos, sin = cos * gain, sin * gain
        return Rotation(self._paired(cos, cos), self._paired(-sin, sin), decay, self.interleaved, self.by_length)

    def frequencies(self, length: int = 1) -> Tensor:
        """(dim / 2,) float64: the angle by which one position rotates each pair, in a text of so many tokens."""
        return 1 / self._periods("cpu", torch.tensor([length], device="cpu", dtype=torch.int64), torch.float64)

    def _length(self, positions: Tensor, seen: Tensor | None) -> Tensor | None:
        """(1,), or (batch, 1, 1, 1): tokens of each row, up to its last real one."""
        if not self.by_length or not positions.shape[-1]:
            return None
        real = positions if seen is None else torch.where(seen, positions, 0)
        length = real.amax(dim=-1, keepdim=True) + 1
        return length[:, None, None] if length.ndim == 2 else length

    def _steps(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.arange(0, self.dim, 2, device=device, dtype=dtype)

    def _periods(self, device: torch.device | str, length: Tensor | None, dtype: torch.dtype = torch.float32) -> Tensor:
        """(dim / 2,), or (batch, 1, 1, dim / 2): one over the frequencies."""
        exponents = self._steps(device, dtype) / self.dim
        if self.scaling == "dynamic" and length is not None:
            return self._theta_of(length.to(dtype)) ** exponents
        plain = self.theta**exponents
        if self.scaling == "linear":
            return plain * self.factor
        if self.scaling == "llama3":
            return self._by_wavelength(plain)
        if self.scaling == "yarn":
            return self._by_cycles(plain)
        if self.scaling == "longrope":
            short, long = (plain * plain.new_tensor(each) for each in (self.short_factors, self.long_factors))
            return short if length is None else torch.where(length > self.original_len, long, short)
        return plain

    def _theta_of(self, length: Tensor) -> Tensor:
        """Dynamic NTK: the base for texts of this length; the slowest frequency falls as if positions were divided."""
        ratio = length.clamp(min=self.original_len) / self.original_len
        return self.theta * (self.factor * ratio - (self.factor - 1)) ** (self.dim / (self.dim - 2))

    def _by_wavelength(self, periods: Tensor) -> Tensor:
        """Llama 3: long wavelengths `factor` times as long, short ones as they are, those between in between."""
        cycles = self.original_len / (2 * math.pi * periods)  # in a text of the original length
        share = (cycles - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        return _blended(periods, self.factor, share.clamp(0, 1))

    def _by_cycles(self, periods: Tensor) -> Tensor:
        """YaRN: pairs of many cycles in a text of the original length as they are, slow ones `factor` times slower."""

        def pair(cycles: float) -> float:  # which one has so many
            return self.dim * math.log(self.original_len / (cycles * 2 * math.pi)) / (2 * math.log(self.theta))

        first, last = pair(self.beta_fast), pair(self.beta_slow)
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, self.dim - 1)
        places = torch.arange(self.dim // 2, device=periods.device, dtype=periods.dtype)
        share = 1 - ((places - first) / max(last - first, 1e-3)).clamp(0, 1)
        return _blended(periods, self.factor, share)

    def _gain(self) -> float:
        """The factor of rotated queries and keys."""
        if self.scaling not in ("yarn", "longrope"):
            return 1.0
        if self.attention_factor is not None:
            return self.attention_factor
        if self.factor <= 1:
            return 1.0
        if self.scaling == "yarn":
            return 0.1 * math.log(self.factor) + 1
        return math.sqrt(1 + math.log(self.factor) / math.log(self.original_len))

    def _paired(self, first: Tensor, second: Tensor) -> Tensor:
        """(..., dim) from what is of the first and of the second feature of each pair, (..., dim / 2)."""
        if self.interleaved:
            return torch.stack((first, second), dim=-1).flatten(-2)
        return torch.cat((first, second), dim=-1)


def _blended(periods: Tensor, factor: float, share: Tensor) -> Tensor:
    """Periods `factor` times as long, but for the `share` of each frequency that is left as it is."""
    return periods / (share + (1 - share) / factor)


def _exact(x: Tensor) -> bool:
    """Whether a matrix product is in full float32 (no TF32 on a GPU, no autocast), with nothing counting its FLOPs."""
    return not torch.compiler.is_compiling() and x.is_cpu and x.dtype == torch.float32 and not onednn.followed()


def _last(x: Tensor, count: int) -> Tensor:
    return x if x.shape[-2] == count else x[..., x.shape[-2] - count :, :]


def _scaled(x: Tensor, factor: Tensor) -> Tensor:
    dtype = torch.float32 if x.dtype == torch.float16 else x.dtype
    rotated = factor.shape[-1]
    return torch.cat(((x[..., :rotated] * factor).to(dtype), x[..., rotated:].to(dtype)), dim=-1)
