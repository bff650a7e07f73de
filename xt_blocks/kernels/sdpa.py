"""torch's fused kernels, scaled_dot_product_attention, which never hold the scores."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from . import compat
from .contract import Kernel
from .explicit import by_key_head
from .request import Request, Result
from .scores.dropout import Dropout


def supports(request: Request) -> str | None:
    for modifier in request.spec.modifiers:
        if not isinstance(modifier, Dropout):
            return f"torch's kernel has no {modifier.name}"
        if (reason := modifier.unreadable()) is not None:
            return reason
    if request.mask.bias is not None and not torch.compiler.is_compiling() and compat.transforms_active():
        return "torch.func hides that a position bias is learned, and torch's kernel has a gradient only if it knows"
    return request.needs_scores()


def declines(request: Request) -> str | None:
    """Plain products read the keys and values of one query faster, where there are many; measured on a CPU.

    In a low precision the kernel keeps its scores in float32, which is worth more, and heads that share keys are as
    several queries.
    """
    q, k, v, *_ = request
    if torch.compiler.is_compiling() or request.mask.queries != 1:
        return None
    fast = k.shape[3] == v.shape[3]  # its fast form has heads of one size
    if fast and (k.numel() < 2**17 or q.shape[1] != k.shape[1]):
        return None
    if q.is_cpu and q.dtype in (torch.float32, torch.float64):
        return "plain products read many keys faster for a single query on a CPU"
    return None


def run(request: Request) -> Result:
    q, k, v, mask, spec, *_ = request
    plain = mask.is_causal
    added = None if plain or mask.all else mask.added(q.dtype)
    if q.shape[2] == 1:  # a query of each of several heads is as good as several queries of a head
        q, added = by_key_head(q, k), added if added is None or added.shape[1] == 1 else by_key_head(added, k)
    else:
        _, k, v, *_ = request.repeated()
    dropout = sum(one.p for one in spec.modifiers if isinstance(one, Dropout)) if spec.modifiers else 0.0
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=added, dropout_p=dropout, is_causal=plain, scale=spec.scale)
    out = out if q is request.q else out.reshape(*request.q.shape[:3], -1)
    return out if added is None or mask.empty is None else out.masked_fill(mask.empty, 0.0), None


KERNEL = Kernel("sdpa", run, supports, declines)
