"""FlexAttention (Dong et al., arXiv:2412.05496) for biases by distance, windows and modifiers of scores on a GPU.

torch compiles the score modifiers into the fused kernel, which then reads one bias value per distance and skips blocks
of keys that no query sees; its other fused kernels read a whole mask.
Axes: b batch, h heads, i queries, j keys, d features of a head.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from blockdsl.registry.builtin.scores import FUSED_FEWEST, FUSED_HEADS

from . import compat
from .contract import Kernel
from .masks import AttentionMask
from .request import Request, Result
from .scores.spec import FlexForm

_ELSEWHERE = f"it is fast on a GPU, from {FUSED_FEWEST} queries on"

PROGRAMS = 64
"""Most compiled programs, one for each number of heads, dtype, kind of mask and modifier. Past torch's own limit of 8
it would run uncompiled, and hold all scores."""


def supports(request: Request) -> str | None:
    q, k, v, mask, spec, *_ = request
    if (reason := request.needs_scores()) is not None:
        return reason
    for modifier in spec.modifiers:
        if not modifier.in_flex:
            return f"FlexAttention has no {modifier.name}"
    if mask.attn_mask is not None or mask.place is not None or not (mask.bias is None or mask.bias.by_distance):
        return "an attn_mask or positions are given or shapes are fixed, and its masks depend on distance alone"
    if compat.flex_attention() is None:
        return "this torch has no FlexAttention"
    if q.is_cuda:
        fits = q.shape[-1] == v.shape[-1] and q.shape[-1] in FUSED_HEADS
        if not fits:
            return "its kernels are for heads of 16, 32, 64 or 128 features, of keys and values alike"
        return None if _compiled() is not None else "FlexAttention can't be compiled here"
    learned = any(t.requires_grad for t in (q, k, v))  # it refuses these even without gradients
    return "FlexAttention has no gradient on a CPU" if learned and q.is_cpu else None


def declines(request: Request) -> str | None:
    if not request.q.is_cuda:
        return _ELSEWHERE
    if torch.compiler.is_compiling():
        return "a compiled graph must not depend on sizes"
    mask = request.mask
    if mask.queries < FUSED_FEWEST:
        return _ELSEWHERE
    if not request.spec.modifiers and mask.bias is None and not (mask.windowed or mask.documents is not None):
        return "torch's other fused kernels can do all of this"
    return None


def run(request: Request) -> Result:
    q, k, v, mask, spec, *_ = request.repeated()
    flex = _compiled() if q.is_cuda else compat.flex_attention().flex_attention
    forms = [modifier.flex(q) for modifier in spec.modifiers]
    outputs = [form.output for form in forms if form.output is not None]
    args = {"score_mod": _score(mask, forms), "block_mask": block_mask(mask, q, k), "scale": spec.scale}
    if not outputs:
        return flex(q, k, v, **args), None
    out, logsumexp = flex(q, k, v, return_lse=True, **args)
    for output in outputs:
        out = output(out, logsumexp)
    return out, None


def block_mask(mask: AttentionMask, q: Tensor, k: Tensor) -> Any:
    """Which blocks of keys each block of queries needs; made once for all blocks of a forward pass."""
    if mask.flex_blocks is None:
        rows = None if mask.mask is None and mask.documents is None else q.shape[0]
        sizes = rows, None, q.shape[2], k.shape[2]
        mask.flex_blocks = compat.flex_attention().create_block_mask(_sees(mask), *sizes, device=str(q.device))
    return mask.flex_blocks


def _sees(attention_mask: AttentionMask) -> Any:
    causal, past, window, future = (getattr(attention_mask, name) for name in ("causal", "past", "window", "future"))
    mem_kv, mask = attention_mask.mem_kv, attention_mask.mask
    starts = None if attention_mask.documents is None else attention_mask.documents.starts

    def sees(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        token, place = j - mem_kv, i + past
        seen = (token <= place) if causal else (token == token)
        if window is not None:
            seen = seen & (token >= place - window)
        if future is not None:
            seen = seen & (token <= place + future)
        if mask is not None:
            seen = seen & mask[b, token.clamp(min=0)]
        if starts is not None:
            seen = seen & (starts[b, i] == starts[b, token.clamp(min=0)])
        return seen | (token < 0)

    return sees


def _score(mask: AttentionMask, forms: list[FlexForm]) -> Any:
    """The change of each score: by the modifiers, then by the position bias of tokens."""
    changes = [form.score for form in forms if form.score is not None]
    if mask.bias is None and not changes:
        return None
    values = None if mask.bias is None else mask.bias.values.contiguous()
    last, mem_kv = mask.queries - 1, mask.mem_kv

    def changed(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        for change in changes:
            score = change(score, h)
        if values is None:
            return score
        token = j - mem_kv
        return torch.where(token < 0, score, score + values[h, (token - i + last).clamp(min=0)])

    return changed


@lru_cache(maxsize=1)
def _compiled() -> Any:
    """The compiled kernel, tried once on a GPU; None, with a warning, if it can't be."""
    if compat.flex_attention() is None:
        return None
    compiled = compile_(compat.flex_attention().flex_attention)
    x = torch.zeros(1, 1, 128, 16, device="cuda", dtype=torch.float32)
    try:
        compiled(x, x, x)
    except Exception as error:  # torch and its compiler have no single type for a missing part
        reason = str(error).strip().splitlines()[:1]
        warnings.warn(f"FlexAttention can't be compiled here, so whole masks are made: {reason}", stacklevel=2)
        return None
    return compiled


def compile_(flex: Any, **options: Any) -> Any:
    """`flex` compiled, up to PROGRAMS times if this torch has a setting for it."""
    if "recompile_limit" in signature(torch.compile).parameters:
        options["recompile_limit"] = PROGRAMS
    return torch.compile(flex, **options)


KERNEL = Kernel("flex", run, supports, declines)
