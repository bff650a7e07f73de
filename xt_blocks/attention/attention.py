"""Self-attention and cross-attention: project, rotate, attend, project back.

Owns the order of these steps and nothing of how each is done. Axes: b batch, n tokens, m context, h heads,
d features of a head.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from ..cache import Slot
from ..keywords import names_nearest
from ..positions.rotary import Rotation
from . import kernel
from .masks import Attend, Masks, check_mask


class _Attention(nn.Module):
    """What self- and cross-attention share: from queries, keys and values to the update."""

    def __init__(self, dim: int, heads: int, dim_head: int, dropout: float, residual_attn: bool) -> None:
        super().__init__()
        self.heads, self.dropout, self.residual_attn = heads, dropout, residual_attn
        self.to_out = nn.Linear(heads * dim_head, dim, bias=False)

    def split_heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(b, n, parts·h·d) → parts of (b, h, n, d)."""
        return rearrange(x, "b n (p h d) -> p b h n d", p=parts, h=self.heads).unbind(0)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Attend, scores: Tensor | None, keep_scores: bool
    ) -> Tensor | tuple[Tensor, Tensor]:
        if scores is not None and not self.residual_attn:
            raise ValueError("scores are given, but residual_attn is false")
        dropout = self.dropout if self.training else 0.0
        if scores is None and not keep_scores:
            return self._output(kernel.fused(q, k, v, mask, dropout))
        out, own = kernel.explicit(q, k, v, mask, dropout, scores)
        return (self._output(out), own) if keep_scores else self._output(out)

    def _output(self, out: Tensor) -> Tensor:
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


class Attention(_Attention):
    """Multi-head self-attention (Vaswani et al., arXiv:1706.03762), fused unless scores are asked for.

    Args:
        dim: features of the stream.
        heads, dim_head: attention heads and the features of each.
        dropout: of the attention weights.
        causal: each token attends to itself and those before it.
        residual_attn: scores of an earlier block may be added to these (arXiv:2012.11747).
    """

    @names_nearest
    def __init__(
        self,
        dim: int,
        heads: int = 8,
        dim_head: int = 64,
        dropout: float = 0.0,
        causal: bool = False,
        residual_attn: bool = False,
    ) -> None:
        super().__init__(dim, heads, dim_head, dropout, residual_attn)
        self.causal = causal
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        attend: Masks | None = None,
        rotary: Rotation | None = None,
        scores: Tensor | None = None,
        keep_scores: bool = False,
        cache: Slot | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """
        Args:
            x: (batch, seq, dim)
            mask: (batch, seq) bool, True = attend; when called alone. In a stack `attend` has it.
            attend: the masks of the forward pass.
            rotary: positions to rotate queries and keys by.
            scores: (batch, heads, seq, keys) of an earlier block.
            keep_scores: return these scores too.
            cache: this block's keys and values of the tokens before x.

        Returns:
            (batch, seq, dim), and with keep_scores the scores (batch, heads, seq, keys).
        """
        check_mask("mask", mask, x)
        q, k, v = self.split_heads(self.to_qkv(x), 3)
        if rotary is not None:
            q, k = rotary.apply(q), rotary.apply(k)
        if cache is not None:
            k, v = cache.extend(k, v)
        masks = Masks(x.shape[1], mask=mask, device=x.device) if attend is None else attend
        return self.attend(q, k, v, masks.tokens(self.causal), scores, keep_scores)


class CrossAttention(_Attention):
    """Multi-head attention to a context (Vaswani et al., arXiv:1706.03762). Arguments as for Attention."""

    @names_nearest
    def __init__(
        self, dim: int, heads: int = 8, dim_head: int = 64, dropout: float = 0.0, residual_attn: bool = False
    ) -> None:
        super().__init__(dim, heads, dim_head, dropout, residual_attn)
        self.to_q = nn.Linear(dim, heads * dim_head, bias=False)
        self.to_kv = nn.Linear(dim, 2 * heads * dim_head, bias=False)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        attend: Masks | None = None,
        scores: Tensor | None = None,
        keep_scores: bool = False,
        cache: Slot | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """
        Args:
            x: (batch, seq, dim)
            context: (batch, context, dim); None when the cache has its keys and values already.
            context_mask: (batch, context) bool, True = attend; when called alone.

        Returns:
            (batch, seq, dim), and with keep_scores the scores (batch, heads, seq, context).
        """
        check_mask("context_mask", context_mask, context)
        (q,) = self.split_heads(self.to_q(x), 1)
        if cache is not None and cache.filled:
            k, v = cache.stored()
        else:
            if context is None:
                raise ValueError("cross-attention needs a context")
            k, v = self.split_heads(self.to_kv(context), 2)
            if cache is not None:
                cache.store(k, v)
        masks = Masks(x.shape[1], context_mask=context_mask, device=x.device) if attend is None else attend
        return self.attend(q, k, v, masks.context(), scores, keep_scores)
