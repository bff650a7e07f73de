"""The recurrence of single numbers, h = a h + b, whose a and b depend on the token.

In about √n steps: each handles one token of all chunks at once, then one chunk after another. What is kept for the
backward pass is a and h. Nothing is divided, so that decays may be as strong as they like.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import compat


def linear_scan(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """h_t = a_t h_(t-1) + b_t.

    Args:
        a, b: (batch, seq, width)
        start: (batch, width), h before the first token.

    Returns:
        (batch, seq, width), h after each token.
    """
    if not a.shape[1]:
        return b
    if a.shape[1] == 1:
        return torch.addcmul(b, a, start[:, None])
    if torch.compiler.is_compiling() or compat.transforms_active():
        return plain_linear_scan(a, b, start)
    out: Tensor = _LinearScan.apply(a, b, start)  # type: ignore[no-untyped-call]
    return out


class _LinearScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, start: Tensor) -> Tensor:
        h = plain_linear_scan(a, b, start)
        ctx.save_for_backward(a, h, start)
        return h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        a, h, start = ctx.saved_tensors
        later = F.pad(a[:, 1:], (0, 0, 0, 1))
        db = linear_scan(later.flip(1), grads[0].flip(1), torch.zeros_like(start)).flip(1)
        return db * torch.cat((start[:, None], h[:, :-1]), dim=1), db, a[:, 0] * db[:, 0]


def plain_linear_scan(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """`linear_scan` by operations that autograd, torch.func and torch.compile follow."""
    seq, size = a.shape[1], 1
    while size * size < seq:
        size *= 2
    a, b = (_in_chunks(x, size) for x in (a, b))
    h, decay = [b[:, :, 0]], [a[:, :, 0]]  # as if nothing came before the chunk; of what did
    for t in range(1, size):
        h.append(b[:, :, t] + a[:, :, t] * h[-1])
        decay.append(decay[-1] * a[:, :, t])
    before = [start]
    for c in range(h[0].shape[1] - 1):
        before.append(h[-1][:, c] + decay[-1][:, c] * before[-1])
    out = torch.stack(h, dim=2) + torch.stack(decay, dim=2) * torch.stack(before, dim=1)[:, :, None]
    return out.flatten(1, 2)[:, :seq]


def _in_chunks(x: Tensor, size: int) -> Tensor:
    """`(batch, seq, width)` → (batch, chunks, size, width), with zeros after the last token."""
    return torch.unflatten(F.pad(x, (0, 0, 0, -x.shape[1] % size)), 1, (-1, size))
