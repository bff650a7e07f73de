"""Which tokens are masked: schedules over time, and the corrupted copy that a model is trained on."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..blocks.subset import random_subset

Schedule = Callable[[Tensor], Tensor]


def linear(t: Tensor) -> Tensor:
    """The share of tokens still masked at time t, from 1 at the start to 0 at the end."""
    return 1 - t


def cosine(t: Tensor) -> Tensor:
    """The same, slow at first: few tokens are settled while little is known (Chang et al., arXiv:2202.04200)."""
    return (t * (math.pi / 2)).cos()


SCHEDULES: dict[str, Schedule] = {"linear": linear, "cosine": cosine}


def schedule_of(schedule: str | Schedule) -> Schedule:
    """A schedule by name, or a callable, tried out: times (n,) from 0 to 1 → shares (n,) from 0 to 1.

    Raises:
        ValueError: an unknown name, or a callable whose shares are out of range or of another shape.
    """
    if isinstance(schedule, str):
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule must be {' or '.join(map(repr, SCHEDULES))} or a callable, not {schedule!r}")
        return SCHEDULES[schedule]
    times = torch.linspace(0, 1, 5, device="cpu", dtype=torch.float32)
    shares = schedule(times)
    if not isinstance(shares, Tensor) or shares.shape != times.shape:
        what = tuple(shares.shape) if isinstance(shares, Tensor) else repr(shares)
        raise ValueError(f"schedule must map times (n,) to shares (n,), tensors both; five times gave {what}")
    if not ((shares > -1e-6) & (shares < 1 + 1e-6)).all():
        raise ValueError(f"schedule must give shares from 0 to 1; the times 0, 0.25, ... 1 gave {shares.tolist()}")
    return schedule


def masked_at_random(real: Tensor, schedule: Schedule) -> Tensor:
    """A training batch's masked places: each row at a time of its own, with the share that the schedule gives then.

    At least one token of a row is masked, if it has any.

    Args:
        real: (batch, seq) bool, True = a real token.
    """
    share = schedule(torch.rand(real.shape[0], device=real.device, dtype=torch.float32))
    return random_subset(real, (share * real.sum(dim=-1)).ceil().clamp(min=1))


def corrupted(x: Tensor, masked: Tensor, mask_id: int, num_tokens: int, keep: float, replace: float) -> Tensor:
    """Tokens with mask_id at the masked places, some of which keep their token or get a random one.

    Kept and random tokens make a model give every place a meaning, not the masked ones alone (BERT, Devlin et al.,
    arXiv:1810.04805). Half of the rows have kept tokens and half random ones, drawn apart: a quarter has neither, as
    it is in generation, which starts from nothing but masks.

    Args:
        x: (batch, seq) tokens.
        masked: (batch, seq) bool.
        keep, replace: the shares of masked tokens, together at most 1.
    """
    batch, device = x.shape[0], x.device
    keeps, replaces = torch.rand(2, batch, 1, device=device, dtype=torch.float32) < 0.5
    u = torch.rand(x.shape, device=device, dtype=torch.float32)
    kept = keeps & (u < keep)
    random = replaces & (u >= 1 - replace)
    others = torch.randint(0, num_tokens - 1, x.shape, device=device, dtype=x.dtype)
    others = others + (others >= mask_id)  # any token but mask_id
    out = torch.where(masked & ~kept, mask_id, x)
    return torch.where(masked & random, others, out)
