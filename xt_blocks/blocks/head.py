"""From the stack's output to logits, or to their loss: by a linear layer, or by the token embedding's own vectors.
Before them there may be a transform.

The loss avoids holding all logits where it can; see `kernels.cross_entropy`. Leaves out which head a model has.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blockdsl.registry.norms import Norm

from ..kernels.activations import ACTIVATIONS
from ..kernels.cross_entropy import Target, softcapped
from ..kernels.hooks import runs, unhooked, within
from .embedding import Embedding
from .linear import apply, linear
from .norms import norm
from .packed import PackedLinear


class LogitsTransform(nn.Module):
    """A linear layer, an activation and a norm before the logits, as in BERT's head (arXiv:1810.04805).

    Args:
        dim, dim_out: features of its input and output.
        activation: one of `ACTIVATIONS`.
        bias: of the linear layer.
    """

    def __init__(self, dim: int, dim_out: int, activation: str, bias: bool, spec: Norm) -> None:
        super().__init__()
        self.project = nn.Linear(dim, dim_out, bias)
        self.activation = activation
        self.norm = norm(spec, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., dim)` → (..., dim_out)"""
        out: Tensor = self.norm(ACTIVATIONS[self.activation](apply(self.project, x)))
        return out


def loss(layer: nn.Module, x: Tensor, target: Target, softcap: float | None) -> Tensor:
    """The cross-entropy of `layer(x)`, softcapped, `x: (batch, seq, dim)`.

    A hook on the layer, or another layer in its place, gets all logits.
    """
    if torch.compiler.is_compiling() or not isinstance(layer, nn.Linear):
        return target.of_logits(softcapped(apply(layer, x), softcap))
    if not any(runs(layer, forward) for forward in (nn.Linear.forward, PackedLinear.forward)):
        return target.of_logits(softcapped(layer(x), softcap))
    return within(layer, lambda x: target.of_linear(x, layer.weight, layer.bias, softcap), x)


def tied_logits(embedding: nn.Module, x: Tensor, rows: int, bias: Tensor | None) -> Tensor:
    """`x: (..., dim)` → (..., rows), dot products with the embedding's first vectors, and `bias: (rows,)`."""
    if isinstance(embedding, Embedding) and _is_its_weight(embedding, rows):
        return embedding.scores(x, bias)
    return linear(x, _vectors(embedding, rows, x), bias)


def tied_loss(
    embedding: nn.Module, x: Tensor, rows: int, bias: Tensor | None, target: Target, softcap: float | None
) -> Tensor:
    """The cross-entropy of the logits that `tied_logits` gives for `x: (batch, seq, dim)`, softcapped."""
    return target.of_linear(x, _vectors(embedding, rows, x), bias, softcap)


def _vectors(embedding: nn.Module, rows: int, x: Tensor) -> Tensor:
    """(rows, dim): the embedding's output for the first rows, in x's dtype."""
    if isinstance(embedding, nn.Embedding) and _is_its_weight(embedding, rows):
        return embedding.weight
    vectors: Tensor = embedding(torch.arange(rows, device=x.device, dtype=torch.int64))
    return vectors.to(x.dtype)


def _is_its_weight(embedding: nn.Embedding, rows: int) -> bool:
    """Whether these vectors are the rows of its weight, which may be read past its call."""
    return unhooked(embedding) and embedding.max_norm is None and embedding.num_embeddings == rows
