"""The attention core, and the one place that decides how it is computed.

Axes: b batch, h heads, i queries, j keys, d features of a head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import compat, flex
from . import single_query as single
from . import tiles as blockwise
from .masks import Attend
from .scores import TalkingHeads, keep_largest

MOST_PLAIN, FEW_THREADS = 1024, 2
"""Up to so many queries and on so few threads tiles train a plain causal attention faster than the fused kernel."""


MOST_MASK = 2**22
"""Elements of a mask that all blocks share, 16 MB, up to which the fused kernel may read one."""


class Scores(NamedTuple):
    """What an attention saw on its way.

    Attributes:
        before: (b, h, i, j) the scores before masking.
        weights: (b, h, i, j) behind the softmax, a row of zeros where nothing is seen.
    """

    before: Tensor
    weights: Tensor


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attend: Attend,
    scale: float,
    dropout: float = 0.0,
    talking_heads: TalkingHeads | None = None,
    sparse_topk: int | None = None,
    flash: bool = True,
) -> Tensor:
    """softmax(q kᵀ · scale) v by the fastest way there is.

    Args:
        q: (b, h, i, d); k: (b, h, j, d); v: (b, h, j, dv).
        dropout: of the attention weights; 0 outside training.
        talking_heads, sparse_topk: see `scores`.
        flash: False asks for `explicit`.

    Returns:
        (b, h, i, dv)
    """
    changed = talking_heads is not None or sparse_topk is not None
    fuses = flash and not changed
    if attend.queries == 1:
        fuses = fuses and not _by_products(q, k)
    elif flash and not torch.compiler.is_compiling():  # by sizes, which would bind a graph to them
        if _by_tiles(q, attend, changed or dropout > 0):
            return blockwise.attention(q, k, v, attend, scale, dropout, talking_heads, sparse_topk)
        if fuses and flex.serves(q, v, attend, dropout):
            return flex.attention(q, k, v, attend, scale)
    if fuses:
        return fused(q, k, v, attend, scale, dropout)
    return explicit(q, k, v, attend, scale, dropout, None, talking_heads, sparse_topk)[0]


def _by_tiles(q: Tensor, attend: Attend, unknown: bool) -> bool:
    """Whether tiles are faster than the other ways or need less memory, as measured on a CPU.

    The fused kernel reads a mask of all pairs, and on a CPU it has no gradient of such a mask.

    Args:
        unknown: something is asked for that it does not know there.
    """
    if attend.queries < 4 * blockwise.ROWS or q.device.type != "cpu":
        return False
    if compat.transforms_active() or type(q) is not Tensor:  # no value can be asked of another type, such as a fake one
        return False
    bias, trains = attend.bias, torch.is_grad_enabled()
    if bias is not None and not bias.by_distance:
        return False
    around = attend.past or attend.memories or attend.mask is not None or attend.pairs is not None
    if unknown or attend.reach is not None or (attend.causal and (around or bias is not None)):
        return True
    if bias is not None:  # all keys are seen: tiles have nothing to leave out but the mask itself
        return (trains and bias.values.requires_grad) or bias.values.shape[0] * q.shape[2] ** 2 > MOST_MASK
    few = attend.queries <= MOST_PLAIN and torch.get_num_threads() <= FEW_THREADS
    return attend.causal and few and trains and q.requires_grad and q.dtype == torch.float32


def _by_products(q: Tensor, k: Tensor) -> bool:
    """Whether plain products read keys and values faster than the fused kernel, as they do of many for one query.

    Measured on a CPU. In a low precision the kernel keeps its scores in float32, which is worth more.
    """
    if torch.compiler.is_compiling() or k.numel() < 2**17:
        return False
    return q.is_cpu and q.dtype in (torch.float32, torch.float64)


def fused(q: Tensor, k: Tensor, v: Tensor, attend: Attend, scale: float, dropout: float = 0.0) -> Tensor:
    """softmax(q kᵀ · scale) v by torch's fused kernel, which never holds the scores.

    Args:
        q: (b, h, i, d); k: (b, h, j, d); v: (b, h, j, dv).
        dropout: of the attention weights; 0 outside training.

    Returns:
        (b, h, i, dv)
    """
    plain = attend.triangle
    mask = None if plain or attend.all else attend.added(q.dtype)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=plain, scale=scale)
    return out if mask is None or attend.empty is None else out.masked_fill(attend.empty, 0.0)


def explicit(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attend: Attend,
    scale: float,
    dropout: float = 0.0,
    scores: Tensor | None = None,
    talking_heads: TalkingHeads | None = None,
    sparse_topk: int | None = None,
) -> tuple[Tensor, Scores]:
    """The same with the scores in hand, for options that read or change them.

    Args:
        q, k, v: as for `fused`.
        scores: (b, h, i, j) of an earlier block, added to these (RealFormer, arXiv:2012.11747).
        talking_heads, sparse_topk: see `scores`.

    Returns:
        (b, h, i, dv), and the scores with what positions add to them and before masking.
    """
    own = _products(q * scale, k, scores)  # scaled first: the bare product overflows float16
    if talking_heads is not None:
        own = talking_heads.mix_scores(own)
    bias, hidden = attend.whole_bias(own.dtype), attend.hidden(own.dtype)
    if bias is not None:  # each head's own, not mixed
        own = own + bias
    masked = own if hidden is None else own + hidden
    if sparse_topk is not None:
        masked = keep_largest(masked, sparse_topk)
    weights = masked.softmax(dim=-1)
    if attend.empty is not None:
        weights = weights.masked_fill(attend.empty, 0.0)
    mixed = F.dropout(weights, dropout) if dropout else weights
    if talking_heads is not None:
        mixed = talking_heads.mix_weights(mixed)
    out = single.mixed(mixed, v, attend.bags) if attend.queries == 1 else mixed @ v
    return out, Scores(own, weights)


def _products(q: Tensor, k: Tensor, scores: Tensor | None) -> Tensor:
    """(b, h, i, j): q kᵀ, with an earlier block's scores added."""
    if scores is None and q.shape[2] == 1:  # reads the keys in order
        return torch.bmm(k.flatten(0, 1), q.flatten(0, 1).transpose(1, 2)).view(*q.shape[:3], k.shape[2])
    if scores is None:
        return q @ k.transpose(-1, -2)
    added = torch.baddbmm(scores.flatten(0, 1), q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2))
    return added.view(*q.shape[:2], *added.shape[1:])
