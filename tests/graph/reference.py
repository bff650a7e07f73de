"""The arithmetic of a stack in plain float64, from the weights of a lowered one.

Written from the formulas, one head and one token at a time, and sharing nothing with xt_blocks. Axes: every `x` is
(batch, seq, dim).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Reference:
    """Branches of the blocks of a module with this state dict: each returns what the block adds to the stream."""

    def __init__(self, module: nn.Module, dim_head: int, causal: bool = False) -> None:
        self.weights = {name: value.double() for name, value in module.state_dict().items()}
        self.dim_head, self.causal = dim_head, causal
        self.scores: dict[str, Tensor] = {}  # of each attention run, (batch, heads, seq, keys)

    def norm(self, x: Tensor, name: str) -> Tensor:
        """LayerNorm by the weights `name`, "norm" for the stack's own."""
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / ((centred**2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def out(self, x: Tensor) -> Tensor:
        """The stack's final norm."""
        return self.norm(x, "norm")

    def a(
        self,
        node: str,
        x: Tensor,
        *,
        dim_head: int | None = None,
        causal: bool | None = None,
        rotary: int = 0,
        scores_of: str | None = None,
        scale: float = 1.0,
        shift: int = 0,
    ) -> Tensor:
        """Self-attention by the weights of `node`."""
        h = self.shifted(self.norm(x, f"blocks.{node}.norm"), shift)
        q, k, v = (h @ self.weights[f"blocks.{node}.layer.to_qkv.weight"].T).chunk(3, dim=-1)
        causal = self.causal if causal is None else causal
        return scale * self._attention(node, q, k, v, dim_head or self.dim_head, causal, rotary, scores_of)

    def c(self, node: str, x: Tensor, context: Tensor) -> Tensor:
        """Cross-attention."""
        h = self.norm(x, f"blocks.{node}.norm")
        q = h @ self.weights[f"blocks.{node}.layer.to_q.weight"].T
        k, v = (context @ self.weights[f"blocks.{node}.layer.to_kv.weight"].T).chunk(2, dim=-1)
        return self._attention(node, q, k, v, self.dim_head, False, 0, None)

    def f(
        self, node: str, x: Tensor, *, glu: bool = False, activation: str = "gelu", scale: float = 1.0, shift: int = 0
    ) -> Tensor:
        """Feedforward."""
        h = self.shifted(self.norm(x, f"blocks.{node}.norm"), shift)
        name = f"blocks.{node}.layer"
        hidden = h @ self.weights[f"{name}.to_hidden.weight"].T + self.weights[f"{name}.to_hidden.bias"]
        if glu:
            value, gate = hidden.chunk(2, dim=-1)
            hidden = value * self._activated(gate, activation)
        else:
            hidden = self._activated(hidden, activation)
        return scale * (hidden @ self.weights[f"{name}.to_out.weight"].T + self.weights[f"{name}.to_out.bias"])

    def shifted(self, x: Tensor, shift: int) -> Tensor:
        """Part i of the features from i tokens before; when not causal, from `shift` before to `shift` after."""
        offsets = [*range(0, shift + 1)] if self.causal else [*range(-shift, shift + 1)]
        size = x.shape[-1] // len(offsets)
        out = x.clone()
        for i, offset in enumerate(offsets):
            part = slice(i * size, (i + 1) * size)
            for t in range(x.shape[1]):
                source = t - offset
                out[:, t, part] = x[:, source, part] if 0 <= source < x.shape[1] else 0.0
        return out

    def _attention(
        self,
        node: str,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        dim_head: int,
        causal: bool,
        rotary: int,
        scores_of: str | None,
    ) -> Tensor:
        heads, seq, keys = q.shape[-1] // dim_head, q.shape[1], k.shape[1]
        outs, all_scores = [], []
        for head in range(heads):
            part = slice(head * dim_head, (head + 1) * dim_head)
            qh, kh = self._rotated(q[..., part], rotary), self._rotated(k[..., part], rotary)
            scores = torch.einsum("bid,bjd->bij", qh, kh) / math.sqrt(dim_head)
            if scores_of is not None:
                scores = scores + self.scores[scores_of][:, head]
            all_scores.append(scores)
            hidden = torch.tensor([[causal and j > i for j in range(keys)] for i in range(seq)])
            powers = scores.exp() * ~hidden
            outs.append(powers / powers.sum(-1, keepdim=True) @ v[..., part])
        self.scores[node] = torch.stack(all_scores, dim=1)
        return torch.cat(outs, dim=-1) @ self.weights[f"blocks.{node}.layer.output.to_out.weight"].T

    @staticmethod
    def _rotated(x: Tensor, rotary: int) -> Tensor:
        out, half = x.clone(), rotary // 2
        for t in range(x.shape[1]):
            for i in range(half):
                angle = t / 10_000 ** (2 * i / rotary)
                first, second = x[:, t, i], x[:, t, i + half]
                out[:, t, i] = first * math.cos(angle) - second * math.sin(angle)
                out[:, t, i + half] = second * math.cos(angle) + first * math.sin(angle)
        return out

    @staticmethod
    def _activated(x: Tensor, activation: str) -> Tensor:
        if activation == "silu":
            return x / (1 + (-x).exp())
        if activation == "relu_squared":
            return x.clamp(min=0) ** 2
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2
