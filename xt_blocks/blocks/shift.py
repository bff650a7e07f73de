"""Token shift: part of the features come from neighbouring tokens (RWKV-LM, doi:10.5281/zenodo.5196578)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels.documents import Documents
from .state import Tail


def shift_tokens(
    x: Tensor,
    shift: int,
    causal: bool,
    mask: Tensor | None = None,
    tail: Tail | None = None,
    documents: Documents | None = None,
) -> Tensor:
    """Split features into equal parts; part i comes from i tokens before, or, not causal, from `shift` before to after.

    Features that do not divide evenly stay in place. Beyond the ends, and for masked tokens, there are zeros, and so
    there are beyond the ends of a token's document.

    Args:
        x: (batch, seq, dim)
        shift: distance of the farthest neighbour; 0 changes nothing.
        mask: (batch, seq) bool, True = real.
        documents: of the row; None: it is one.
        tail: keeps the last `shift` tokens, (batch, shift, dim), while decoding; only with causal.

    Returns:
        (batch, seq, dim)
    """
    if shift == 0:
        return x
    offsets = range(0, shift + 1) if causal else range(-shift, shift + 1)
    size, seq = x.shape[-1] // len(offsets), x.shape[1]
    real = x if mask is None else x.masked_fill(~mask[..., None], 0.0)
    after = 0 if causal else shift
    padded = F.pad(real, (0, 0, shift, after)) if tail is None else tail.before(real)
    parts = [
        # an unshifted part is the token's own, masked or not
        x[..., i * size : (i + 1) * size]
        if offset == 0
        else _within(padded[:, shift - offset : shift - offset + seq, i * size : (i + 1) * size], documents, offset)
        for i, offset in enumerate(offsets)
    ]
    return torch.cat((*parts, x[..., len(offsets) * size :]), dim=-1)


def _within(part: Tensor, documents: Documents | None, offset: int) -> Tensor:
    return part if documents is None else part * documents.same(offset)[..., None]
