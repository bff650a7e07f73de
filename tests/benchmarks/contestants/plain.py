"""A decoder written by hand, as small as one can be: what torch itself gives, without a library.

GPT-2's layers with learned positions, or a gated feedforward with rotary positions. Parameters are as many as ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..setting import Setting
from .base import Contestant

BASE = 10_000.0


class Layer(nn.Module):
    """Attention and feedforward, each after a norm and added to the stream."""

    def __init__(self, dim: int, heads: int, glu: bool) -> None:
        super().__init__()
        self.heads, self.glu = heads, glu
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.up, self.down = nn.Linear(dim, 4 * dim * (2 if glu else 1)), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor, rotation: Tensor | None, cache: Tensor | None = None, past: int = 0) -> Tensor:
        """
        Args:
            x: (batch, seq, dim)
            rotation: (2, seq, features / 2), cosines and sines that turn the first features of queries and keys.
            cache: (2, batch, heads, length, dim_head), keys and values; those of x are written after `past` ones.
        """
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if rotation is not None:
            q, k = turned(q, *rotation), turned(k, *rotation)
        if cache is not None:
            seen = past + x.shape[1]
            cache[0, :, :, past:seen], cache[1, :, :, past:seen] = k, v
            k, v = cache[:, :, :, :seen]
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=x.shape[1] > 1)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        hidden = self.up(self.norm2(x))
        if self.glu:
            hidden, gate = hidden.chunk(2, dim=-1)
            return x + self.down(hidden * F.gelu(gate))
        return x + self.down(F.gelu(hidden))


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Feature i of `x: (..., seq, features)` turned with feature i + half; cosines and sines are (seq, half)."""
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)


class Decoder(nn.Module):
    """Tokens in, logits out."""

    def __init__(self, vocabulary: int, length: int, dim: int, depth: int, heads: int, glu_rotary: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, dim)
        self.places = None if glu_rotary else nn.Embedding(length, dim)
        self.layers = nn.ModuleList(Layer(dim, heads, glu_rotary) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, vocabulary)
        rotated = dim // heads // 2
        frequencies = BASE ** -(torch.arange(0, rotated, 2) / rotated)
        angles = torch.outer(torch.arange(length).float(), frequencies)
        self.register_buffer("rotation", torch.stack((angles.cos(), angles.sin())), persistent=False)
        for embedding in filter(None, (self.tokens, self.places)):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: Tensor, caches: Tensor | None = None, past: int = 0) -> Tensor:
        """`tokens: (batch, seq)`, after `past` cached ones → (batch, seq, vocabulary)."""
        here = slice(past, past + tokens.shape[1])
        x = self.tokens(tokens)
        if self.places is not None:
            x = x + self.places.weight[here]
        rotation = self.rotation[:, here] if self.places is None else None
        for number, layer in enumerate(self.layers):
            x = layer(x, rotation, None if caches is None else caches[number], past)
        return self.head(self.norm(x))

    @torch.no_grad()
    def generate(self, prompt: Tensor, new: int) -> Tensor:
        """(batch, new) likeliest tokens after `prompt: (batch, seq)`."""
        layer: Layer = self.layers[0]  # type: ignore[assignment]
        heads, weight = layer.heads, layer.out.weight
        batch, seq = prompt.shape
        room = (len(self.layers), 2, batch, heads, seq + new, weight.shape[0] // heads)
        caches = torch.empty(room, dtype=weight.dtype, device=prompt.device)
        tokens, out = prompt, []
        for step in range(new):
            past = 0 if step == 0 else seq + step - 1
            tokens = self(tokens, caches, past)[:, -1:].argmax(dim=-1)
            out.append(tokens)
        return torch.cat(out, dim=1)


class Plain(Contestant):
    """This file's model."""

    def __init__(self, setting: Setting, glu_rotary: bool = False) -> None:
        super().__init__(setting)
        sizes = (setting.vocabulary, setting.length, setting.dim, setting.depth, setting.heads)
        self.net = self.placed(Decoder(*sizes, glu_rotary=glu_rotary))

    def generate(self, prompt: Tensor, new: int) -> Tensor:
        net: Decoder = self.net  # type: ignore[assignment]
        return net.generate(prompt, new)
