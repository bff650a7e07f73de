"""A read: where earlier values of the stream join its present one.

`blockdsl.registry.reads` declares the ways to join. Tied reads share a module, so the scale of each is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from blockdsl.registry.norms import Norm
from blockdsl.registry.reads import JOINS

from .linear import apply
from .norms import norm


class StreamJoin(nn.Module):
    """Earlier values u_1, ..., u_n of the stream join its present value x.

    Args:
        dim: features of the stream.
        values: how many earlier values there are.
        join: one of `blockdsl.registry.reads.JOINS`: add, gain, gate, cat, linear, soft, route.
        init: what learned factors, or biases of gates, are at first; None: there are none.
    """

    def __init__(self, dim: int, values: int, join: str = "add", init: float | None = None) -> None:
        super().__init__()
        self.join, self.replaces = join, JOINS[join].replaces
        if join == "gain":
            self.gain = nn.Parameter(torch.full((values,), float(init or 0)))
        elif join == "gate":
            self.gate = nn.Linear(dim, values)
            nn.init.zeros_(self.gate.weight)  # equally open for all tokens at first
            nn.init.constant_(self.gate.bias, float(init or 0))
        elif join == "cat":
            self.combine = nn.Linear((values + 1) * dim, dim, bias=False)
        elif join == "linear":
            self.linear = nn.Linear(dim, dim, bias=False)
        elif join == "soft":
            self.logits = nn.Parameter(torch.zeros(values))
        elif join == "route":
            self.norm, self.route = norm(Norm.of("rmsnorm", {}), dim), nn.Linear(dim, values)
            nn.init.zeros_(self.route.weight)
            nn.init.zeros_(self.route.bias)

    def forward(self, x: Tensor, earlier: Sequence[Tensor], scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """
        Args:
            x: (batch, seq, dim)
            earlier: values, each (batch, seq, dim).
            scale: of what is added to x.

        Returns:
            the stream, (batch, seq, dim), and what it has gained.
        """
        joined = self._joined(x, earlier)
        gained = joined - x if self.replaces else joined
        gained = gained if scale == 1 else gained * scale
        return joined if self.replaces and scale == 1 else x + gained, gained

    def factors(self, x: Tensor) -> Tensor | None:
        """What each value is multiplied by, (values,), or by token (batch, seq, values); None: by nothing alone."""
        if self.join == "gate":
            return apply(self.gate, x).sigmoid()
        if self.join == "route":
            return apply(self.route, self.norm(x)).softmax(dim=-1)
        return {"gain": lambda: self.gain, "soft": lambda: self.logits.softmax(dim=0)}.get(self.join, lambda: None)()

    def _joined(self, x: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        if self.join == "cat":
            return apply(self.combine, torch.cat((*earlier, x), dim=-1))
        if self.join == "linear":
            return reduce(torch.add, earlier, apply(self.linear, x))
        if (factors := self.factors(x)) is None:
            return reduce(torch.add, earlier)
        each = factors.unbind() if factors.ndim == 1 else factors[..., None, :].unbind(dim=-1)
        return reduce(torch.add, (u * factor for u, factor in zip(earlier, each, strict=True)))
