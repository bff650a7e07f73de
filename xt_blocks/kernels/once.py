"""Gradients by hand that have none of their own: a second derivative through them is refused in words.

torch's `once_differentiable` tells of it in `backward()` alone: `torch.autograd.grad` of some inputs passes over such a
function in silence, and what it gives is wrong. Here what a gradient was made of leads to the refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor

Backward = Callable[..., tuple[Tensor | None, ...]]
SCAN = "a scan on a CPU", "torch.func has others too, as torch.func.hessian"


def first_derivatives(what: str, otherwise: str) -> Callable[[Callable[..., Any]], Backward]:
    """A decorator of a function's `backward(ctx, saved, *grads)`, in which no gradient is tracked.

    What the function was given has to be among what it saved, since a second derivative comes back by it.

    Args:
        what: of what the gradients are, for the message.
        otherwise: what to do where second derivatives are wanted.
    """

    def decorate(backward: Callable[..., Any]) -> Backward:
        @wraps(backward)
        def once(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            saved = ctx.saved_tensors  # once: a checkpoint gives them a single time
            with torch.no_grad():
                found: Sequence[Tensor | None] = backward(ctx, saved, *grads)
            if not torch.is_grad_enabled():
                return tuple(found)
            message = f"{what} has first derivatives only; {otherwise}"
            given = [t for t in found if t is not None]
            refused = iter(_Refused.apply(message, len(given), *given, *saved, *grads))  # type: ignore[no-untyped-call]
            return tuple(None if t is None else next(refused) for t in found)

        return once

    return decorate


class _Refused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, message: str, count: int, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        ctx.message = message
        return tuple(t.view_as(t) for t in tensors[:count] if t is not None)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(ctx.message)
