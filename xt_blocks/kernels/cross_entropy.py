"""Cross-entropy of a linear layer's outputs, without ever holding all of them.

With a large vocabulary the logits outgrow all else that a training step keeps. Here they are computed for a few
tokens at a time, together with what the backward pass needs: the gradients of the linear layer and of its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import compat, onednn

FEWEST = 2**21
"""Logits from which it pays."""

ROWS = 128
"""Tokens at a time on a CPU."""
ROWS_ELSEWHERE = 1024
"""The same on a device that multiplies faster: each part reads and writes the gradient of the whole weight."""


class Target(NamedTuple):
    """What the tokens are to predict.

    Attributes:
        tokens: (batch, seq) int64
        ignore_index: targets with this value do not count.
        reduction: "mean" over those that count, or "sum".
        z_loss: factor of log²Z that is added, where Z is the sum of a token's exponentials: it keeps logits from
            drifting (PaLM, arXiv:2204.02311).
    """

    tokens: Tensor
    ignore_index: int = -100
    reduction: str = "mean"
    z_loss: float = 0.0

    def of_logits(self, logits: Tensor) -> Tensor:
        """The cross-entropy of `logits: (batch, seq, classes)`, in nats; NaN is the mean of none."""
        logits, targets = logits.flatten(0, -2), self.tokens.flatten()
        loss = F.cross_entropy(logits, targets, ignore_index=self.ignore_index, reduction=self.reduction)
        if not self.z_loss:
            return loss
        seen = targets != self.ignore_index
        squares = logits.logsumexp(dim=-1).square().where(seen, 0).sum()
        return loss + self.z_loss * (squares / seen.sum() if self.reduction == "mean" else squares)

    def of_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, softcap: float | None = None) -> Tensor:
        """The same for the logits of a linear layer on `x: (batch, seq, dim)`.

        Args:
            weight: (classes, dim)
            bias: (classes,)
            softcap: logits are bounded by it, see `softcapped`.
        """
        if not _pays(x, weight):
            return self.of_logits(softcapped(F.linear(x, weight, bias), softcap))
        device, dtype = x.device.type, x.dtype
        if torch.is_autocast_enabled(device) and dtype != torch.float64:  # which autocast leaves alone
            low, dtype = torch.get_autocast_dtype(device), torch.float32
            x, weight, bias = x.to(low), weight.to(low), None if bias is None else bias.to(low)
        targets = self.tokens.flatten()
        seen = targets != self.ignore_index
        with torch.autocast(device, enabled=False):
            loss: Tensor = _Sum.apply(
                *(x.flatten(0, -2), weight, bias, softcap, self.z_loss),
                *(targets.where(seen, 0), seen, torch.is_grad_enabled()),
            )  # type: ignore[no-untyped-call]
        if self.reduction == "mean":
            count = seen.sum()
            loss = (loss / count.clamp(min=1)).where(count > 0, torch.nan)
        return loss.to(dtype)


def softcapped(logits: Tensor, softcap: float | None) -> Tensor:
    """Each logit x as c · tanh(x / c), which is between -c and c (Gemma 2, arXiv:2408.00118); None: as it is."""
    return logits if softcap is None else (logits / softcap).tanh() * softcap


def _pays(x: Tensor, weight: Tensor) -> bool:
    """Whether there are many logits, of plain tensors, and nothing that must see how they are computed."""
    if torch.compiler.is_compiling() or compat.transforms_active():
        return False
    plain = all(type(own) in (Tensor, nn.Parameter) and not own.is_meta for own in (x, weight))
    return plain and x.shape[:-1].numel() * weight.shape[0] >= FEWEST


class _Sum(torch.autograd.Function):
    """The sum over tokens. Its gradients are ready for one backward pass; another computes them anew."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        softcap: float | None,
        z_loss: float,
        targets: Tensor,
        seen: Tensor,
        learns: bool,
    ) -> Tensor:
        """`x: (tokens, dim)`, `targets: (tokens,)` int64, `seen: (tokens,)` bool, whether a target counts."""
        ctx.save_for_backward(x, weight, bias, targets, seen)
        ctx.softcap, ctx.z_loss = softcap, z_loss
        needed = [learns and needs for needs in ctx.needs_input_grad[:3]]
        total, ctx.ready = _by_parts(x, weight, bias, softcap, z_loss, targets, seen, needed)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ready, ctx.ready = ctx.ready, None
        if ready is None or torch.is_grad_enabled():  # a further pass, or one that is differentiated itself
            caps = ctx.softcap, ctx.z_loss
            return *_whole(ctx.saved_tensors, *caps, ctx.needs_input_grad[:3], gradient), *(None,) * 5
        return *(own if own is None else own.mul_(gradient) for own in ready), *(None,) * 5


def _by_parts(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    softcap: float | None,
    z_loss: float,
    targets: Tensor,
    seen: Tensor,
    needed: Sequence[bool],
) -> tuple[Tensor, list[Tensor | None]]:
    """The sum, and its gradients by x, weight and bias, where needed; sums over tokens are in float32 at least."""
    exact = torch.promote_types(x.dtype, torch.float32)
    total = x.new_zeros((), dtype=exact)
    dx = torch.empty_like(x) if needed[0] else None
    dw = torch.zeros_like(weight, dtype=exact) if needed[1] else None
    db = torch.zeros_like(bias, dtype=exact) if bias is not None and needed[2] else None
    rows = ROWS if x.device.type == "cpu" else ROWS_ELSEWHERE
    fast = onednn.BEATS_MKL and x.dtype == torch.float32 and onednn.takes(x, weight)
    buffer = None if fast else x.new_empty(min(rows, len(x)), len(weight))
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        own, target, counts = x[part], targets[part, None], seen[part, None]
        logits = (
            onednn.run(own, weight) if buffer is None else torch.mm(own, weight.T, out=buffer[: len(own)]).to(exact)
        )
        if bias is not None:
            logits += bias
        share = None
        if softcap is not None:
            share = logits.div_(softcap).tanh_()
            logits = share * softcap
        largest = logits.amax(dim=-1, keepdim=True)
        logits -= largest
        picked = logits.gather(-1, target)
        scale = logits.exp_().sum(dim=-1, keepdim=True)
        total += (scale.log() - picked).where(counts, 0).sum()
        log_z = scale.log() + largest if z_loss else None
        if log_z is not None:
            total += z_loss * log_z.square().where(counts, 0).sum()
        if not any(needed):
            continue
        logits *= counts / scale  # the gradient: the probabilities, less one at the target
        if log_z is not None:
            logits *= 1 + 2 * z_loss * log_z
        logits.scatter_add_(-1, target, -counts.to(exact))
        if share is not None:
            logits *= share.square_().neg_().add_(1)  # the derivative of tanh
        error = logits.to(x.dtype)
        if dx is not None and fast:
            dx[part] = onednn.run(error, weight.T)
        elif dx is not None:
            torch.mm(error, weight, out=dx[part])
        if dw is not None:
            _ = dw.addmm_(error.T, own) if dw.dtype == own.dtype else dw.add_(error.T @ own)
        if db is not None:
            db += logits.sum(dim=0)
        del logits, error, share  # before there are others
    return total, [dx, dw, db]


def _whole(
    saved: Sequence[Any], softcap: float | None, z_loss: float, needed: Sequence[bool], gradient: Tensor
) -> list[Tensor | None]:
    """The gradients by the plain formula, which can be differentiated again."""
    *inputs, targets, seen = saved
    with torch.enable_grad():
        inputs = [own if own is None else own.view_as(own) for own in inputs]  # x may be computed from a tied weight
        logits = softcapped(F.linear(*inputs), softcap)
        losses = F.cross_entropy(logits, targets, reduction="none")
        losses = losses + z_loss * logits.logsumexp(dim=-1).square() if z_loss else losses
        wanted = [own for own, needs in zip(inputs, needed, strict=True) if needs]
        total = losses.where(seen, 0).sum()
        found = iter(torch.autograd.grad(total, wanted, gradient.to(total.dtype), create_graph=True))
    return [next(found) if needs else None for needs in needed]
