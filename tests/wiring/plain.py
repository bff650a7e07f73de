"""The arithmetic of blocks and reads in plain torch, written from the formulas, on the parameters of a lowered stack.

It shares nothing with xt_blocks, so its outputs and, by autograd, its gradients are something to hold the stack to.
Axes: every `x` is (batch, seq, dim).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class Seen:
    """What an attention leaves: keys, values and scores, (batch, heads, seq, ...)."""

    k: Tensor
    v: Tensor
    scores: Tensor = field(default_factory=lambda: torch.zeros(()))


class Plain:
    """Causal pre-norm blocks, each of which returns the stream after it.

    Attributes:
        seen: node → what its attention left.
    """

    def __init__(self, stack: nn.Module, heads: int, rotary: int = 0) -> None:
        self.p, self.heads, self.rotary = dict(stack.named_parameters()), heads, rotary
        self.seen: dict[str, Seen] = {}

    def norm(self, x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        unit = centred / ((centred**2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return unit * self.p[f"{name}.weight"] + self.p[f"{name}.bias"]

    def out(self, x: Tensor) -> Tensor:
        return self.norm(x, "norm")

    def f(self, node: str, x: Tensor, use: int | None = None, alone: bool = False) -> Tensor:
        """A feedforward, as one of the uses of its weights; `alone`, in the stream's place."""
        w = {name: self.p[f"blocks.{node}.layer.{name}"] for name in self._of("to_hidden", "to_out")}
        h = self.norm(x, f"blocks.{node}.norm")
        hidden = h @ self._of_use(f"blocks.{node}.layer", "to_hidden", 1, use).T + w["to_hidden.bias"]
        hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        update = hidden @ w["to_out.weight"].T + w["to_out.bias"]
        return update if alone else x + update

    def a(
        self,
        node: str,
        x: Tensor,
        kv: str | None = None,
        values: str | Tensor | None = None,
        scores: str | None = None,
        window: int | None = None,
        owner: str | None = None,
        concat: Tensor | None = None,
        use: int | None = None,
        alone: bool = False,
    ) -> Tensor:
        """Self-attention, with what it takes of the attentions of these nodes, by the weights of `owner`.

        `values`: of a node, or themselves, (batch, seq, features).
        With `concat` it reads that beside x. As one of the uses of its weights; `alone`, in the stream's place.
        """
        name = f"blocks.{owner or node}"
        h = self.norm(x if concat is None else torch.cat((x, concat), dim=-1), f"{name}.norm")
        made = self._split(h @ self._of_use(f"{name}.layer", "to_qkv", 3, use).T)
        if kv is not None:
            q, own = self._rotated(made), self.seen[kv]
        else:
            q, k, v = made.chunk(3, dim=1)
            other = self.seen[values].v if isinstance(values, str) else None if values is None else self._split(values)
            if other is not None and f"{name}.layer.value_gains" in self.p:
                gains = self.p[f"{name}.layer.value_gains"]
                v = gains[0] * v + gains[1] * other
            elif other is not None and f"{name}.layer.to_value_mix.weight" in self.p:
                mix = h @ self.p[f"{name}.layer.to_value_mix.weight"].T + self.p[f"{name}.layer.to_value_mix.bias"]
                share = 1 / (1 + (-mix.transpose(1, 2)[..., None]).exp())
                v = share * v + (1 - share) * other
            elif other is not None:
                v = v / 2 + other / 2
            q, own = self._rotated(q), Seen(self._rotated(k), v)
        earlier = None if scores is None else self.seen[scores].scores
        update = self._attention(node, f"{name}.layer.output.to_out.weight", q, own, earlier, window)
        return update if alone else x + update

    def _of_use(self, layer: str, linear: str, parts: int, use: int | None) -> Tensor:
        """A linear layer's matrix, with the product B·A of one use added to the rows of each of its equal parts."""
        weight = self.p[f"{layer}.{linear}.weight"]
        if use is None:
            return weight
        down, up = (self.p[f"{layer}.lora.{name}_weight"][use].chunk(parts) for name in ("down", "up"))
        return weight + torch.cat([b @ a for a, b in zip(down, up, strict=True)])

    def c(self, node: str, x: Tensor, context: Tensor) -> Tensor:
        """Cross-attention to the same tokens elsewhere in the stack."""
        name = f"blocks.{node}.layer"
        q = self._split(self.norm(x, f"blocks.{node}.norm") @ self.p[f"{name}.to_q.weight"].T)
        k, v = self._split(context @ self.p[f"{name}.to_kv.weight"].T).chunk(2, dim=1)
        return x + self._attention(node, f"{name}.output.to_out.weight", q, Seen(k, v), None, None)

    def _attention(
        self, node: str, out: str, q: Tensor, own: Seen, earlier: Tensor | None, window: int | None
    ) -> Tensor:
        scores = q @ own.k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        scores = scores if earlier is None else scores + earlier
        self.seen[node] = Seen(own.k, own.v, scores)
        seq = q.shape[2]
        far = seq if window is None else window
        hidden = torch.tensor([[j > i or j < i - far for j in range(seq)] for i in range(seq)])
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        return (weights @ own.v).transpose(1, 2).flatten(2) @ self.p[out].T

    def _split(self, x: Tensor) -> Tensor:
        """(batch, seq, n·heads·8) → (batch, n·heads, seq, 8)."""
        return x.unflatten(-1, (-1, 8)).transpose(1, 2)

    def _rotated(self, x: Tensor) -> Tensor:
        if not self.rotary:
            return x
        half = self.rotary // 2
        angles = torch.tensor(
            [[t / 10_000 ** (2 * i / self.rotary) for i in range(half)] for t in range(x.shape[2])], dtype=x.dtype
        )
        first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)

    @staticmethod
    def _of(*layers: str) -> list[str]:
        return [f"{layer}.{what}" for layer in layers for what in ("weight", "bias")]
