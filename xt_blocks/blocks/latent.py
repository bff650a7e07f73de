"""Latent attention: from a token's latent vectors to queries, keys and values (MLA, DeepSeek-V2, arXiv:2405.04434).

Owns what is between the linear layer that makes latents of tokens, which `Attention` has, and the attention itself.
A cache keeps latents, and a key that all heads share and that alone is rotated. Several tokens expand all of them to
keys and values by head. A single token that is decoded attends to the latents themselves: q · (W c) is (Wᵀ q) · c, so
that W is multiplied with its query and its sum of latents, and not with each token of the cache.
Axes: b batch, n tokens, m sources, h heads, d features of a head, r of a latent vector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from blockdsl.registry.builtin.latent import EPS, made_of_latents, made_of_token
from blockdsl.registry.norms import Norm

from ..kernels.hooks import unhooked
from ..positions.rotary import Rotation
from .init import xavier
from .linear import apply
from .norms import norm
from .project import split_heads
from .state import LayerState, in_type_of

Values = Callable[[Tensor], Tensor]
"""Weighted sums of latents (b, h, 1, r) → of values (b, h, 1, dv)."""


class Latent(nn.Module):
    """Norms of the latent vectors, and the linear layers that read them.

    Rows of `to_q` and `to_kv` are by head: the features that are not rotated come first, then the rotated ones of
    queries, or the values.

    Args:
        o: the options of an attention block.
    """

    def __init__(self, o: Any) -> None:
        super().__init__()
        self.heads, self.sizes = o.heads, made_of_token(o)
        self.own, self.values, self.rank = o.dim_head - o.shared_key_dim, o.value_dim_head, o.kv_rank
        spec = Norm("rmsnorm", EPS, unit_offset=o.norm_unit_offset)
        self.q_norm = norm(spec, o.q_rank) if o.q_rank else None
        self.to_q = nn.Linear(o.q_rank, o.heads * o.dim_head, bias=False) if o.q_rank else None
        self.kv_norm = norm(spec, o.kv_rank)
        self.to_kv = nn.Linear(o.kv_rank, made_of_latents(o), bias=False)

    def init_xavier(self, gain: float) -> None:
        """Xavier normal weights, with this gain for values; keys and values are a matrix each."""
        if self.to_q is not None:
            xavier(self.to_q.weight)
        for rows, own in zip(self._by_head(self.to_kv.weight.detach()), (1.0, gain), strict=True):
            matrix = rows.flatten(0, 1).clone()
            xavier(matrix, gain=own)
            rows.copy_(matrix.view_as(rows))

    def forward(
        self, made: Tensor, before: Tensor | None, rotary: Rotation | None, cache: LayerState | None
    ) -> tuple[Tensor, Tensor, Tensor, Values | None]:
        """
        Args:
            made: (b, n, features) of the tokens: queries or their latents, latents of keys and values, the shared key.
            before: (b, m, features) of earlier tokens, without queries.
            rotary: rotation of the shared key and of queries.
            cache: latents and shared keys of the tokens before, and where new ones go.

        Returns:
            queries (b, h, n, d), keys (b, h, m, d), values (b, h, m, dv) and None; or for a single token after those of
            a cache queries (b, h, 1, r + shared), keys (b, 1, m, r + shared), values (b, 1, m, r), and what makes
            values of their sum.
        """
        q, latents, key = made.split_with_sizes(self.sizes, dim=-1)
        if before is not None:
            earlier = before.split_with_sizes(self.sizes[1:], dim=-1)
            latents, key = torch.cat((earlier[0], latents), dim=1), torch.cat((earlier[1], key), dim=1)
        if self.to_q is not None:
            assert self.q_norm is not None
            q = apply(self.to_q, self.q_norm(q))
        own, rotated = split_heads(q, self.heads).tensor_split((self.own,), dim=-1)
        latents = self.kv_norm(latents).to(made.dtype)  # autocast may norm in float32
        latents, key = latents[:, None], key[:, None]  # (b, 1, m, features), as of one head
        if rotary is not None:
            rotated, key = rotary.before_cache(rotated, key)
        if cache is not None:
            (kept,) = cache.append(latents=torch.cat((latents, key), dim=-1)[:, 0])
            kept = in_type_of(latents, kept)[:, None]
            latents, key = kept.tensor_split((self.rank,), dim=-1)
        key_as_kept = key
        if rotary is not None:
            rotated, key = rotary.after_cache(rotated, key)
        if cache is not None and own.shape[2] == 1 and self._readable():
            q, values_of = self._absorbed(own, rotated)
            return q, kept if key is key_as_kept else torch.cat((latents, key), dim=-1), latents, values_of
        keys, values = split_heads(apply(self.to_kv, latents[:, 0]), self.heads).tensor_split((self.own,), dim=-1)
        shared = key.expand(-1, self.heads, -1, -1)
        return torch.cat((own, rotated), dim=-1), torch.cat((keys, shared), dim=-1), values, None

    def _readable(self) -> bool:
        """Whether the weight of keys and values may be read past its module's call."""
        return isinstance(self.to_kv, nn.Linear) and self.to_kv.bias is None and unhooked(self.to_kv)

    def _absorbed(self, own: Tensor, rotated: Tensor) -> tuple[Tensor, Values]:
        """Queries of latents and shared keys, and what makes values of sums of latents."""
        to_keys, to_values = self._by_head(self.to_kv.weight)  # (h, d or dv, r)

        def values(sums: Tensor) -> Tensor:
            return (sums[:, :, 0].transpose(0, 1) @ to_values.mT).transpose(0, 1)[:, :, None]

        absorbed = (own[:, :, 0].transpose(0, 1) @ to_keys).transpose(0, 1)[:, :, None]
        return torch.cat((absorbed, rotated), dim=-1), values

    def _by_head(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Views of the rows that make keys and values, (h, d or dv, r)."""
        keys, values = torch.unflatten(weight, 0, (self.heads, -1)).split_with_sizes((self.own, self.values), dim=1)
        return keys, values
