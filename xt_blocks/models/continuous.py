"""Vectors in, vectors out: a linear map and positions before a stack, a linear map behind it."""

from __future__ import annotations

from torch import Tensor, nn

from blockdsl.errors import UserError
from blockdsl.graph.tokens import block_schemes
from blockdsl.registry.options import Option, by_name, check_values
from blockdsl.registry.positions import REPLACE_ABSOLUTE, SCHEMES
from blockdsl.registry.tokens import TOKEN_OPTIONS

from ..blocks.linear import apply
from ..runtime.stack import Stack
from .keywords import names_nearest
from .sequence import SequenceModel

_OPTIONS = by_name(TOKEN_OPTIONS) | by_name(
    (
        Option("max_seq_len", int, None, "longest sequence", least=1),
        Option("dim_in", int, None, "features of the input; none: as they are", least=1, optional=True),
        Option("dim_out", int, None, "features of the output; none: as they are", least=1, optional=True),
    )
)


class ContinuousTransformerWrapper(SequenceModel):
    """A stack over a sequence of vectors, frames or measurements say.

    Args:
        max_seq_len: longest sequence; learned absolute positions have so many rows.
        attn_layers: the stack, an Encoder, a Decoder or what `lower` gave.
        dim_in: features of the input; None: those of the embedded sequence, taken as they are.
        dim_out: features of the output; None: the stack's, as they are.
        emb_dim: features of the embedded sequence where they are not the stack's; a linear map leads from one to the
            other.
        post_emb_norm, emb_dropout, use_abs_pos_emb, scaled_sinu_pos_emb, num_memory_tokens: as TransformerWrapper has
            them.

    Attributes:
        graph: the stack's BlockGraph.
        dim_in, dim_out: features of input and output.

    Raises:
        TypeError: attn_layers is no stack, or an argument is unknown; the message names the nearest.
        UserError: a value is out of range, or two arguments clash.
    """

    @names_nearest
    def __init__(
        self,
        *,
        max_seq_len: int,
        attn_layers: Stack,
        dim_in: int | None = None,
        dim_out: int | None = None,
        emb_dim: int | None = None,
        post_emb_norm: bool = False,
        emb_dropout: float = 0.0,
        use_abs_pos_emb: bool = True,
        scaled_sinu_pos_emb: bool = False,
        num_memory_tokens: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(attn_layers, Stack):
            raise TypeError(f"attn_layers must be a stack, as Decoder(...) is, not {type(attn_layers).__name__}")
        given = {
            "max_seq_len": max_seq_len,
            "dim_in": dim_in,
            "dim_out": dim_out,
            "emb_dim": emb_dim,
            "post_emb_norm": post_emb_norm,
            "emb_dropout": emb_dropout,
            "use_abs_pos_emb": use_abs_pos_emb,
            "scaled_sinu_pos_emb": scaled_sinu_pos_emb,
            "num_memory_tokens": num_memory_tokens,
        }
        check_values(given, _OPTIONS)
        self.graph = attn_layers.graph
        emb_dim = attn_layers.dim if emb_dim is None else emb_dim
        self.project_in = nn.Identity() if dim_in is None else nn.Linear(dim_in, emb_dim)
        self._around(
            attn_layers,
            max_seq_len,
            emb_dim,
            self._scheme(use_abs_pos_emb, scaled_sinu_pos_emb),
            post_emb_norm=post_emb_norm,
            emb_dropout=emb_dropout,
            num_memory_tokens=num_memory_tokens,
        )
        self.project_out = nn.Identity() if dim_out is None else nn.Linear(attn_layers.dim, dim_out)
        self.dim_in = emb_dim if dim_in is None else dim_in
        self.dim_out = attn_layers.dim if dim_out is None else dim_out

    def _scheme(self, use_abs_pos_emb: bool, scaled_sinu_pos_emb: bool) -> str | None:
        """The positions that are added to the input; a stack with rotary ones or T5's bias has none."""
        in_place = sorted(block_schemes(self.graph) & REPLACE_ABSOLUTE)
        if scaled_sinu_pos_emb and in_place:
            title = SCHEMES[in_place[0]].title
            raise UserError(f"scaled_sinu_pos_emb is set, but a model with {title} has no absolute positions")
        if scaled_sinu_pos_emb and not use_abs_pos_emb:
            raise UserError("scaled_sinu_pos_emb is set, but use_abs_pos_emb=False takes absolute positions away")
        if in_place or not use_abs_pos_emb:
            return None
        return "sinusoidal" if scaled_sinu_pos_emb else "absolute"

    def _vectors(self, x: Tensor) -> Tensor:
        return apply(self.project_in, x)

    def _outputs(self, hidden: Tensor) -> Tensor:
        return apply(self.project_out, hidden)

    def _check_sequence(self, x: Tensor) -> None:
        if x.ndim != 3 or x.shape[-1] != self.dim_in or not x.is_floating_point():
            raise ValueError(f"x must be float (batch, seq, {self.dim_in}), not {x.dtype} {tuple(x.shape)}")
