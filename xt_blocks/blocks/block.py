"""The residual block: norm, shift, the layer itself, layer scale, stochastic depth, scale, and the add.

    pre-norm:   x ── norm ── shift ── layer ── ·gain ── drop ── ·scale ──(+)── y
    sandwich:   x ── norm ── shift ── layer ── norm ── ·gain ── drop ── ·scale ──(+)── y
    output:     x ── shift ── layer ── norm ── ·gain ── drop ── ·scale ──(+)── y
    post-norm:  x ── shift ── layer ── ·gain ── drop ── ·scale ──(+)── norm ── y
    both:       x ── norm ── shift ── layer ── ·gain ── drop ── ·scale ──(+)── norm ── y

The stream, x, joins the add. ·gain is layer scale, where it is on. Norms and layer scales may read a condition.
(+) is a `residual.ResidualConnection`, which may do more than add. Of several streams a `residual.HyperConnection`
gives the x that the branch reads, and mixes them.

Owns the arithmetic around a layer. Tied nodes share a block's module, so what differs by node (shift, scale, state)
is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from blockdsl.registry.norms import Norm

from ..kernels.batch_rows import kept_by_row
from ..kernels.documents import Documents
from .layer_output import LayerOutput
from .norms import AdaptiveLayerScale, adapted, norm
from .residual import HyperConnection, ResidualConnection, orthogonal
from .shift import shift_tokens
from .state import Tail


@dataclass(frozen=True)
class Use:
    """How one node runs its block."""

    shift: int = 0
    scale: float = 1.0
    causal: bool = False
    shares_norm: bool = False
    number: int = 0  # of the blocks that share its parameters
    restarts: bool = False  # its layer carries something along the tokens by itself, and reads each document alone


class BlockOutput(NamedTuple):
    """What a block returns.

    Attributes:
        stream: (batch, seq, dim) after the block; of several (batch, seq, streams, dim).
        update: (batch, seq, dim), the branch's contribution.
        adds: whether the stream is exactly its input plus the update, without, say, a post-norm.
        scores: what the layer returned with its update, if that was requested.
        losses, statistics, gives: what else it returned, see `LayerOutput`.
        normed: (batch, seq, dim), the stream as the layer reads it, where another block shares the norm.
        read: (batch, seq, dim), what the branch reads, of several streams or with the stack's input injected; with
            `concat` (batch, seq, 2·dim).
    """

    stream: Tensor
    update: Tensor
    adds: bool
    scores: Any
    normed: Tensor | None = None
    losses: Mapping[str, Tensor] | None = None
    statistics: Mapping[str, Tensor] | None = None
    read: Tensor | None = None
    gives: Mapping[str, Any] | None = None


class Block(nn.Module):
    """A layer as a residual block. Hooks on it (sharding, checkpointing) see every pass.

    Args:
        layer: called with x and the inputs its kind declares; returns the update, (batch, seq, dim), or a LayerOutput.
        dim: features of the stream.
        norm_spec: which norm of the stream it has, if any.
        pre_norm: norm before the layer (arXiv:2002.04745), else after the add (arXiv:1706.03762).
        drop: probability that a row skips the layer in training; the other rows are scaled up to keep the mean
            (stochastic depth, arXiv:1603.09382).
        sandwich_norm: which norm of the layer's update it has, beside the other (arXiv:2105.13290) or alone
            (arXiv:2501.00656).
        residual: how the update joins the stream; added by default.
        layer_scale: initial value of a learned gain for each feature of the update (arXiv:2103.17239); None: no gain.
        post_norm: which norm of the stream after the add it has, beside that before the layer (arXiv:2601.19895).
        condition: features of the condition that adaptive norms and layer scales read.
        orthogonal: the update is without its part along the stream (arXiv:2505.11881).
        adaptive_layer_scale: the condition says the gain for each feature of the update (arXiv:2212.09748).
        dim_in: features that the norm before the layer reads; None: dim.

    Attributes:
        adds: the residual connection only adds; kept here, since a look at a module of a module takes time.
        mixes: it mixes several streams.
    """

    def __init__(
        self,
        layer: nn.Module,
        dim: int,
        norm_spec: Norm | None,
        pre_norm: bool = True,
        drop: float = 0.0,
        sandwich_norm: Norm | None = None,
        residual: ResidualConnection | HyperConnection | None = None,
        layer_scale: float | None = None,
        post_norm: Norm | None = None,
        condition: int = 0,
        adaptive_layer_scale: bool = False,
        orthogonal: bool = False,
        dim_in: int | None = None,
    ) -> None:
        super().__init__()
        self.norm = norm(norm_spec, dim if dim_in is None or not pre_norm else dim_in, condition)
        self.layer = layer
        self.sandwich_norm = None if sandwich_norm is None else norm(sandwich_norm, dim, condition)
        self.post_norm = None if post_norm is None else norm(post_norm, dim, condition)
        self.adaptive_layer_scale = AdaptiveLayerScale(dim, condition) if adaptive_layer_scale else None
        self.layer_scale = None if layer_scale is None else nn.Parameter(torch.full((dim,), float(layer_scale)))
        self.residual = residual or ResidualConnection(dim)
        self.pre_norm, self.drop, self.orthogonal = pre_norm, drop, orthogonal

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "residual":
            self.adds: bool = getattr(value, "adds", False)
            self.mixes = isinstance(value, HyperConnection)

    def forward(
        self,
        x: Tensor,
        use: Use | None = None,
        inputs: Mapping[str, Any] | None = None,
        mask: Tensor | None = None,
        tail: Tail | None = None,
        memory: Tensor | None = None,
        normed: Tensor | None = None,
        condition: Tensor | None = None,
        documents: Documents | None = None,
        injected: Tensor | None = None,
        concat: Tensor | None = None,
    ) -> BlockOutput:
        """
        Args:
            x: (batch, seq, dim), or several streams, (batch, seq, streams, dim)
            inputs: the inputs that the layer's kind declares.
            mask: (batch, memory + seq) bool, True = a real token; for the shift.
            tail: the state of this node's shift while decoding.
            memory: (batch, tokens, dim), the stream this node read in earlier segments.
            normed: (batch, seq, dim), x as another block has normed it, for the layer to read; not with a memory.
            condition: (batch, 1, features) of a row, or (batch, at least memory + seq, features) of its last tokens,
                for a block that reads one.
            documents: of the rows; None: each is one.
            injected: (batch, seq, dim), what is added to x as the branch reads it.
            concat: (batch, seq, dim), what the branch reads beside x, with more features.
        """
        use, inputs = use or Use(), inputs or {}
        stream, read = x, None
        if self.mixes:
            x, stream, weights = self.residual(x)
            read = x
        elif injected is not None:
            x = read = x + injected
        if concat is not None:
            x = read = torch.cat((x, concat), dim=-1)
        tokens = x if memory is None else torch.cat((memory.to(x.dtype), x), dim=1)
        hidden = (adapted(self.norm, tokens, condition) if self.pre_norm else tokens) if normed is None else normed
        shared = hidden[:, tokens.shape[1] - x.shape[1] :] if use.shares_norm else None
        if use.shift:
            hidden = shift_tokens(hidden, use.shift, use.causal, mask, tail, documents)
        if memory is not None:
            past = memory.shape[1]
            if "memory" in inputs:
                inputs = {**inputs, "memory": hidden[:, :past] if past else None}
            hidden = hidden[:, past:]
        alone = documents if use.restarts else None
        if alone is not None:
            hidden, inputs = alone.apart(hidden), {**inputs, "mask": alone.real(inputs.get("mask"))}
        update, scores, losses, statistics, gives = LayerOutput.of(self.layer(hidden, **inputs))
        update = update if alone is None else alone.joined(update)
        if self.sandwich_norm is not None:
            update = adapted(self.sandwich_norm, update, condition)
        if self.layer_scale is not None:
            update = update * self.layer_scale
        if self.adaptive_layer_scale is not None:
            update = adapted(self.adaptive_layer_scale, update, condition)
        if self.drop and self.training:
            update = update * self._kept(update) / (1 - self.drop)
        if use.scale != 1.0:
            update = update * use.scale
        if self.orthogonal:
            update = orthogonal(update, stream)
        if self.mixes:
            stream = HyperConnection.join(update, stream, weights)
            condition = None if condition is None else condition[..., None, :]
        else:
            stream = stream + update if self.adds else self.residual(update, stream)
        if self.pre_norm and self.post_norm is None:
            return BlockOutput(stream, update, self.adds, scores, shared, losses, statistics, read, gives)
        stream = adapted(self.post_norm or self.norm, stream, condition)
        return BlockOutput(stream, update, False, scores, shared, losses, statistics, read, gives)

    def _kept(self, update: Tensor) -> Tensor:
        """(batch, 1, 1), 0 where a row's update is dropped, else 1."""
        shape = (update.shape[0], 1, 1)
        kept = kept_by_row(shape, self.drop, update.device)
        return update.new_empty(shape).bernoulli_(1 - self.drop) if kept is None else kept.to(update.dtype)
