"""Vectors in, vectors out: a linear layer or convolutions before a stack, with positions, a linear layer after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from blockdsl.registry.keywords import parameters, spells
from blockdsl.registry.options import by_name
from blockdsl.registry.tokens import VECTOR_OPTIONS

from ..blocks.linear import apply
from ..kernels.compat import uncompiled
from ..kernels.tensors import as_weights, check_tensor
from ..runtime.stack import Stack
from .conv_stem import ConvStem
from .keywords import names_nearest
from .sequence import SequenceModel

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from blockdsl.signatures import VectorKeywords


class ContinuousTransformerWrapper(SequenceModel):
    """A stack over a sequence of vectors, such as frames or measurements.

    Args:
        max_seq_len: longest sequence, and the number of learned absolute positions; None or 0: any length, without
            learned positions.
        attn_layers: the stack, an Encoder, a Decoder or a result of `lower`.
        dim_in: features of the input; None: those of the embedded sequence, taken as they are.
        dim_out: features of the output; None: the stack's, as they are.
        dim_out_bias: a bias of the linear layer to dim_out.
        conv_stem: two convolutions with GELU in place of the linear layer from dim_in, the second of stride 2, as
            Whisper has them (arXiv:2212.04356). A sequence of n frames has ⌈n / 2⌉ places in the stack: max_seq_len,
            positions, outputs, and all arguments but x and mask are of these. A model with it takes no cache.
        emb_dim: features of the embedded sequence where they are not the stack's; a linear layer leads from one to
            the other.
        post_emb_norm, emb_dropout, use_abs_pos_emb, scaled_sinu_pos_emb, num_memory_tokens: as TransformerWrapper has
            them.

    Attributes:
        graph: the whole model's BlockGraph.
        dim_in, dim_out: features of input and output.

    Raises:
        TypeError: attn_layers is no stack, or an argument is unknown; the message names the nearest.
        UserError: a value is out of range, or two arguments clash.
    """

    over = "vectors"

    @names_nearest
    @spells(parameters(by_name(VECTOR_OPTIONS)))
    def __init__(self, *, max_seq_len: int | None, attn_layers: Stack, **options: Unpack[VectorKeywords]) -> None:
        super().__init__()
        if not isinstance(uncompiled(attn_layers), Stack):
            raise TypeError(f"attn_layers must be a stack, as Decoder(...) is, not {type(attn_layers).__name__}")
        self.graph = attn_layers.graph.with_vectors(max_seq_len, **options)
        start, end = self.graph.nx.nodes[self.graph.start], self.graph.nx.nodes[self.graph.end]
        emb_dim, dim_in, dim_out = self.graph.emb_dim, start["dim_in"], end["dim_out"]
        stem = start["conv_stem"]
        self.project_in = nn.Identity() if dim_in is None or stem else nn.Linear(dim_in, emb_dim)
        self.conv_stem = ConvStem(emb_dim if dim_in is None else dim_in, emb_dim) if stem else None
        self._build(attn_layers)
        self.project_out = (
            nn.Identity() if dim_out is None else nn.Linear(attn_layers.dim, dim_out, end["dim_out_bias"])
        )
        self.dim_in = emb_dim if dim_in is None else dim_in
        self.dim_out = attn_layers.dim if dim_out is None else dim_out

    def _places(self, x: Tensor, mask: Tensor | None, cached: bool) -> tuple[Tensor, Tensor | None]:
        if self.conv_stem is None:
            return x, mask
        if cached:
            raise ValueError("the model has conv_stem, which reads a whole sequence: it takes no cache")
        return self.conv_stem(x, mask), self.places_of(mask)

    def places_of(self, mask: Tensor | None) -> Tensor | None:
        return mask if self.conv_stem is None else self.conv_stem.places(mask)

    def _vectors(self, x: Tensor) -> Tensor:
        return apply(self.project_in, x)

    def _outputs(self, hidden: Tensor) -> Tensor:
        return apply(self.project_out, hidden)

    def checked_sequence(self, x: Tensor) -> Tensor:
        check_tensor("x", x)
        if x.ndim != 3 or x.shape[-1] != self.dim_in or not x.is_floating_point():
            raise ValueError(f"x must be float (batch, seq, {self.dim_in}), not {x.dtype} {tuple(x.shape)}")
        return as_weights(x, self)
