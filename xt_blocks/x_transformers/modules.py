"""Norms, embeddings, positions and residuals as modules of their own, under x-transformers' names and state-dict keys.

Our models do not use them: they are for clients that build their own layers from such parts.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks.embedding import SMALL_STD, unit_length

# Norms ---------------------------------------------------------------------------------------------------------------


class _Gain(nn.Module):
    """A learned gain, stored less one with `unit_offset`, so that weight decay pulls it to one."""

    def __init__(self, features: int, unit_offset: bool) -> None:
        super().__init__()
        self.unit_offset = unit_offset
        self.g = nn.Parameter(torch.full((features,), 1.0 - unit_offset))

    def _gain(self) -> Tensor:
        return self.g + 1.0 if self.unit_offset else self.g


class RMSNorm(_Gain):
    """Features divided by their root mean square, with a gain each (Zhang & Sennrich, arXiv:1910.07467).

    Args:
        dim: features.
        unit_offset: the gain is stored less one.
    """

    def __init__(self, dim: int, unit_offset: bool = False) -> None:
        super().__init__(dim, unit_offset)
        self.scale = dim**0.5

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., dim)` → (..., dim)."""
        return F.normalize(x, dim=-1) * self.scale * self._gain()


class ScaleNorm(_Gain):
    """As RMSNorm, with one gain for all features (Nguyen & Salazar, arXiv:1910.05895)."""

    def __init__(self, dim: int, unit_offset: bool = False) -> None:
        super().__init__(1, unit_offset)
        self.scale = dim**0.5

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., dim)` → (..., dim)."""
        return F.normalize(x, dim=-1) * self.scale * self._gain()


class LayerNorm(nn.Module):
    """Layer norm with a gain and without a bias (arXiv:1607.06450).

    Args:
        dim: features.
        unit_offset: the gain is stored less one.
    """

    def __init__(self, dim: int, unit_offset: bool = False) -> None:
        super().__init__()
        self.unit_offset = unit_offset
        self.gamma = nn.Parameter(torch.full((dim,), 1.0 - unit_offset))

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., dim)` → (..., dim)."""
        gain = self.gamma + 1.0 if self.unit_offset else self.gamma
        return F.layer_norm(x, self.gamma.shape) * gain


class SimpleRMSNorm(nn.Module):
    """Features divided by their root mean square (TransNormer, arXiv:2307.14995).

    Args:
        dim: features.
    """

    def __init__(self, dim: int, **_: Any) -> None:
        super().__init__()
        self.scale = dim**0.5

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., dim)` → (..., dim)."""
        return F.normalize(x, dim=-1) * self.scale


class _Adaptive(nn.Module):
    """A gain that a condition says, at first one (DiT, arXiv:2212.09748).

    Args:
        dim: features.
        dim_condition: features of the condition; None: as many.
    """

    def __init__(self, dim: int, dim_condition: int | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.to_gamma = nn.Linear(dim if dim_condition is None else dim_condition, dim, bias=False)
        nn.init.zeros_(self.to_gamma.weight)

    def _normed(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, *, condition: Tensor) -> Tensor:
        """`x: (batch, seq, dim)`, `condition: (batch, dim_condition)` or (batch, seq, dim_condition) → as x."""
        condition = condition[:, None] if condition.ndim == 2 else condition
        return self._normed(x) * (self.to_gamma(condition) + 1.0)


class AdaptiveRMSNorm(_Adaptive):
    """RMSNorm with a gain that a condition says; the arguments are dim and dim_condition, by default as many."""

    def _normed(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * self.dim**0.5


class AdaptiveLayerNorm(_Adaptive):
    """LayerNorm with a gain that a condition says, without bias; the arguments are dim and dim_condition."""

    def _normed(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.dim,))


# Embeddings ----------------------------------------------------------------------------------------------------------


class TokenEmbedding(nn.Module):
    """Embedded tokens, of unit length if asked for (FixNorm, arXiv:1910.05895).

    Args:
        dim, num_tokens: features, and the size of the vocabulary.
        l2norm_embed: scale each vector to length one.
    """

    def __init__(self, dim: int, num_tokens: int, l2norm_embed: bool = False) -> None:
        super().__init__()
        self.l2norm_embed = l2norm_embed
        self.emb = nn.Embedding(num_tokens, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`x: (batch, seq)` int → (batch, seq, dim)."""
        vectors: Tensor = self.emb(x.long())
        return unit_length(vectors) if self.l2norm_embed else vectors

    def init_(self) -> None:
        """Draw the vectors as a TransformerWrapper does."""
        if self.l2norm_embed:
            nn.init.normal_(self.emb.weight, std=SMALL_STD)
        else:
            nn.init.kaiming_normal_(self.emb.weight)


def _places(x: Tensor, pos: Tensor | None, seq_start_pos: Tensor | None, offset: int) -> Tensor:
    """(seq,) or (batch, seq) int: positions given, or counted from `offset` and from each row's start."""
    pos = torch.arange(x.shape[1], device=x.device, dtype=torch.int64) + offset if pos is None else pos
    return pos if seq_start_pos is None else (pos - seq_start_pos[..., None]).clamp(min=0)


class AbsolutePositionalEmbedding(nn.Module):
    """A learned vector for each position (Gehring et al., arXiv:1705.03122), times dim^-0.5.

    Args:
        dim: features.
        max_seq_len: number of positions.
        l2norm_embed: scale each vector to length one instead.
    """

    def __init__(self, dim: int, max_seq_len: int, l2norm_embed: bool = False) -> None:
        super().__init__()
        self.scale = 1.0 if l2norm_embed else dim**-0.5
        self.max_seq_len, self.l2norm_embed = max_seq_len, l2norm_embed
        self.emb = nn.Embedding(max_seq_len, dim)

    def forward(
        self, x: Tensor, pos: Tensor | None = None, seq_start_pos: Tensor | None = None, offset: int = 0
    ) -> Tensor:
        """
        Args:
            x: (batch, seq, ...), for its length.
            pos: (seq,) or (batch, seq) int; None: counted.
            seq_start_pos: (batch,) int, where each row starts.
            offset: position of the first one.

        Returns:
            (seq, dim) or (batch, seq, dim)

        Raises:
            ValueError: the sequence has more than max_seq_len places.
        """
        if x.shape[1] > self.max_seq_len:
            raise ValueError(f"the sequence has {x.shape[1]} places; max_seq_len is {self.max_seq_len}")
        vectors: Tensor = self.emb(_places(x, pos, seq_start_pos, offset)) * self.scale
        return unit_length(vectors) if self.l2norm_embed else vectors


class ScaledSinusoidalEmbedding(nn.Module):
    """Sines and cosines of the position (Vaswani et al., arXiv:1706.03762) times a learned scale.

    Args:
        dim: features; even.
        theta: base of the wavelengths.

    Raises:
        ValueError: dim is odd.
    """

    inv_freq: Tensor

    def __init__(self, dim: int, theta: float = 10000) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"sinusoidal positions need an even number of features, not {dim}")
        self.scale = nn.Parameter(torch.full((1,), dim**-0.5))
        powers = torch.arange(dim // 2, dtype=torch.float32, device=self.scale.device) / (dim // 2)
        self.register_buffer("inv_freq", theta**-powers, persistent=False)

    def forward(
        self, x: Tensor, pos: Tensor | None = None, seq_start_pos: Tensor | None = None, offset: int = 0
    ) -> Tensor:
        """See `AbsolutePositionalEmbedding`: (seq, dim) or (batch, seq, dim)."""
        pos = torch.arange(x.shape[1], device=x.device, dtype=torch.int64) + offset if pos is None else pos
        pos = pos if seq_start_pos is None else pos - seq_start_pos[..., None]
        angles = pos[..., None].to(self.inv_freq.dtype) * self.inv_freq
        return torch.cat((angles.sin(), angles.cos()), dim=-1) * self.scale


# Rotary positions ----------------------------------------------------------------------------------------------------


class RotaryEmbedding(nn.Module):
    """Angles of rotary positions (Su et al., arXiv:2104.09864), for `apply_rotary_pos_emb`; neighbours share one.

    Args:
        dim: how many features of a head are rotated; even.
        use_xpos, scale_base: xPos's decay (arXiv:2212.10554), and the distance over which it falls by one step.
        interpolation_factor: divides the angles, at least 1.
        base: of the wavelengths.
        base_rescale_factor: lengthens them for longer sequences ("NTK-aware" scaling).

    Raises:
        ValueError: interpolation_factor is below 1.
    """

    inv_freq: Tensor
    scale: Tensor | None

    def __init__(
        self,
        dim: int,
        use_xpos: bool = False,
        scale_base: int = 512,
        interpolation_factor: float = 1.0,
        base: float = 10000,
        base_rescale_factor: float = 1.0,
    ) -> None:
        super().__init__()
        if interpolation_factor < 1:
            raise ValueError(f"interpolation_factor must be at least 1, not {interpolation_factor}")
        if base_rescale_factor != 1:
            base = base * base_rescale_factor ** (dim / (dim - 2))
        steps = torch.arange(0, dim, 2, dtype=torch.float32, device=torch.get_default_device())
        self.interpolation_factor, self.scale_base = interpolation_factor, scale_base
        self.register_buffer("inv_freq", base ** -(steps / dim))
        self.register_buffer("scale", (steps + 0.4 * dim) / (1.4 * dim) if use_xpos else None)

    def forward_from_seq_len(self, seq_len: int) -> tuple[Tensor, Tensor | float]:
        """Angles and factors of positions 0 to seq_len - 1."""
        places = torch.arange(seq_len, device=self.inv_freq.device, dtype=torch.int64)
        angles: tuple[Tensor, Tensor | float] = self(places)
        return angles

    def forward(self, t: Tensor | int, device: Any = None) -> tuple[Tensor, Tensor | float]:
        """
        Args:
            t: (seq,) or (batch, seq) int positions; or a length, as releases 1.x take it.
            device: ignored; the angles are on the module's.

        Returns:
            (batch or 1, seq, dim) angles, and factors of the same shape, or 1.0 without xPos.
        """
        if isinstance(t, int):
            return self.forward_from_seq_len(t)
        middle = (t.max() + 1) // 2
        t = t[None] if t.ndim == 1 else t
        angles = t[..., None].to(self.inv_freq.dtype) * self.inv_freq / self.interpolation_factor
        angles = angles.repeat_interleave(2, dim=-1)
        if self.scale is None:
            return angles, 1.0
        power = (t - middle) / self.scale_base
        return angles, (self.scale ** power[..., None]).repeat_interleave(2, dim=-1)


def rotate_half(x: Tensor) -> Tensor:
    """`x: (..., dim)` with each pair of neighbours (a, b) as (-b, a)."""
    a, b = x.reshape(*x.shape[:-1], -1, 2).unbind(dim=-1)
    return torch.stack((-b, a), dim=-1).flatten(-2)


def apply_rotary_pos_emb(t: Tensor, freqs: Tensor, scale: Tensor | float = 1) -> Tensor:
    """Rotate the first features of queries or keys by angles of `RotaryEmbedding`; the others stay.

    Args:
        t: (batch, seq, features) or (batch, heads, seq, features)
        freqs: (batch or 1, positions, dim); the last positions are those of t.
        scale: xPos's factors, as RotaryEmbedding gives them; for keys, one over them.
    """
    dim, seq = freqs.shape[-1], t.shape[-2]
    freqs = _for_heads(freqs[:, -seq:], t)
    factor = _for_heads(scale[:, -seq:], t) if isinstance(scale, Tensor) else scale
    own, rest = t[..., :dim], t[..., dim:]
    rotated = (own * freqs.cos() + rotate_half(own) * freqs.sin()) * factor
    return torch.cat((rotated, rest), dim=-1).to(t.dtype)


def _for_heads(angles: Tensor, t: Tensor) -> Tensor:
    return angles[:, None] if t.ndim == 4 else angles


# Feedforward and residuals -------------------------------------------------------------------------------------------


class ReluSquared(nn.Module):
    """The square of a rectified value (Primer, arXiv:2109.08668)."""

    def forward(self, x: Tensor) -> Tensor:
        """`x: (...)` → (...)."""
        return F.relu(x).square()


class GLU(nn.Module):
    """A gated linear unit (Shazeer, arXiv:2002.05202).

    Args:
        dim_in, dim_out: features.
        activation: of the gate.
    """

    def __init__(self, dim_in: int, dim_out: int, activation: nn.Module) -> None:
        super().__init__()
        self.act, self.proj = activation, nn.Linear(dim_in, dim_out * 2)

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., dim_in)` → (..., dim_out)."""
        values, gate = self.proj(x).chunk(2, dim=-1)
        return values * self.act(gate)


class Residual(nn.Module):
    """Adds a branch's update to the residual, scaled if asked for.

    Args:
        dim: features.
        scale_residual: a learned factor of each feature of the residual.
        scale_residual_constant: a fixed factor.
    """

    def __init__(self, dim: int, scale_residual: bool = False, scale_residual_constant: float = 1.0) -> None:
        super().__init__()
        self.residual_scale = nn.Parameter(torch.ones(dim)) if scale_residual else None
        self.scale_residual_constant = scale_residual_constant

    def forward(self, x: Tensor, residual: Tensor, **kwargs: Any) -> Tensor:
        """`x, residual: (batch, seq, dim)`, the update and the stream → (batch, seq, dim)."""
        residual = residual if self.residual_scale is None else residual * self.residual_scale
        return x + residual * self.scale_residual_constant


class GRUGating(nn.Module):
    """A GRU cell that reads the update, with the residual as its state (GTrXL, arXiv:1910.06764).

    Args:
        dim: features.
        scale_residual: a learned factor of each feature of the residual.
    """

    def __init__(self, dim: int, scale_residual: bool = False) -> None:
        super().__init__()
        self.gru = nn.GRUCell(dim, dim)
        self.residual_scale = nn.Parameter(torch.ones(dim)) if scale_residual else None

    def forward(self, x: Tensor, residual: Tensor, **kwargs: Any) -> Tensor:
        """`x, residual: (batch, seq, dim)`, the update and the stream → (batch, seq, dim)."""
        residual = residual if self.residual_scale is None else residual * self.residual_scale
        return self.gru(x.flatten(0, 1), residual.flatten(0, 1)).unflatten(0, x.shape[:2])
