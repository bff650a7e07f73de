"""Tokens in, logits out: embedding and positions before a stack, a linear map behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention.masks import check_mask
from ..cache import Cache
from ..embedding import Embedding
from ..keywords import names_nearest
from ..positions.absolute import AbsolutePositions
from ..stack import Stack

if TYPE_CHECKING:
    from blockdsl import BlockGraph


class TransformerWrapper(nn.Module):
    """A stack over tokens.

    Args:
        num_tokens: size of the vocabulary.
        max_seq_len: longest sequence; learned absolute positions have so many rows.
        attn_layers: the stack, an Encoder, a Decoder or what `lower` gave.
        use_abs_pos_emb: learned absolute positions, unless the stack has rotary ones.
        emb_dropout: dropout of the embedded sequence.
        tie_embedding: logits by the token embedding's own matrix (arXiv:1608.05859), without a bias and divided by
            √dim, as T5 does, since the embedding is drawn for the stream and not for logits (arXiv:1910.10683).

    Attributes:
        graph: the whole model's BlockGraph.
    """

    @names_nearest
    def __init__(
        self,
        *,
        num_tokens: int,
        max_seq_len: int,
        attn_layers: Stack,
        use_abs_pos_emb: bool = True,
        emb_dropout: float = 0.0,
        tie_embedding: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(attn_layers, Stack):
            raise TypeError(f"attn_layers must be a stack, as Decoder(...) is, not {type(attn_layers).__name__}")
        self.graph: BlockGraph = attn_layers.graph.with_tokens(
            num_tokens, max_seq_len, use_abs_pos_emb, emb_dropout, tie_embedding
        )
        dim = attn_layers.dim
        self.num_tokens, self.max_seq_len = num_tokens, max_seq_len
        self.token_emb = Embedding(num_tokens, dim, std=(2 / dim) ** 0.5)  # He et al., arXiv:1502.01852
        absolute = "absolute" in self.graph.nx
        self.pos_emb = AbsolutePositions(max_seq_len, dim) if absolute else None
        self.emb_dropout = nn.Dropout(emb_dropout)
        self.attn_layers = attn_layers
        self.to_logits = None if tie_embedding else nn.Linear(dim, num_tokens)

    @property
    def pattern(self) -> str:
        """The canonical text of the stack's pattern."""
        return self.graph.pattern

    def new_cache(self, batch: int, max_len: int | None = None) -> Cache:
        """Room to decode `batch` sequences of up to `max_len` tokens, max_seq_len when not given."""
        return self.attn_layers.new_cache(batch, self.max_seq_len if max_len is None else max_len)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        return_embeddings: bool = False,
        cache: Cache | None = None,
    ) -> Tensor:
        """
        Args:
            x: (batch, seq) int tokens.
            mask: (batch, seq) bool, True = a real token; padding may be on either side.
            context: (batch, context, dim), for cross-attention.
            context_mask: (batch, context) bool.
            return_embeddings: the stack's output in place of logits.
            cache: x goes on behind the tokens it holds.

        Returns:
            (batch, seq, num_tokens) logits, or (batch, seq, dim).

        Raises:
            ValueError: x is no int (batch, seq), or longer than max_seq_len with absolute positions.
        """
        if x.ndim != 2 or x.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"tokens must be int64 or int32 (batch, seq), not {x.dtype} {tuple(x.shape)}")
        check_mask("mask", mask, x)
        hidden = self.token_emb(x)
        if self.pos_emb is not None:
            hidden = hidden + self.pos_emb(self._positions(x, mask, cache))
        hidden = self.attn_layers(
            self.emb_dropout(hidden), context=context, mask=mask, context_mask=context_mask, cache=cache
        )
        if return_embeddings:
            return hidden
        if self.to_logits is None:
            return F.linear(hidden * self.attn_layers.dim**-0.5, self.token_emb.weight)
        return self.to_logits(hidden)

    def _positions(self, x: Tensor, mask: Tensor | None, cache: Cache | None) -> Tensor:
        """(seq,), or (batch, seq) counted from each row's first real token, which a cache may hold."""
        past = 0 if cache is None else cache.length
        end = past + x.shape[1]
        if end > self.max_seq_len:
            raise ValueError(f"the sequence has {end} tokens; max_seq_len is {self.max_seq_len}")
        positions = torch.arange(past, end, device=x.device)
        seen = mask if cache is None else cache.seen(mask, x.shape[1], x.device)
        if seen is None:
            return positions
        padding = (seen.cumsum(dim=-1) == 0).sum(dim=-1, keepdim=True)
        return (positions - padding).clamp(min=0)
