"""Number formats, and whether a result is as near to the exact one as its format allows.

A result is held to the exact one, computed in float64 from the same inputs. What it may be off is a few times what plain
code is off that computes in the same format, since nothing else says how much a format loses on the way.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Precision:
    """
    Attributes:
        weights: the type of parameters and inputs.
        arithmetic: that of products; another one than the weights' is autocast's.
    """

    name: str
    weights: torch.dtype
    arithmetic: torch.dtype

    def autocast(self, device: str) -> torch.autocast:
        enabled = self.arithmetic != self.weights
        dtype = self.arithmetic if enabled else torch.bfloat16
        return torch.autocast(torch.device(device).type, dtype=dtype, enabled=enabled)


PRECISIONS = {
    own.name: own
    for own in (
        Precision("float32", torch.float32, torch.float32),
        Precision("bfloat16", torch.bfloat16, torch.bfloat16),
        Precision("float16", torch.float16, torch.float16),
        Precision("autocast", torch.float32, torch.bfloat16),
    )
}

TIMES = 3.0
"""As often as plain code in the same format may a result be off."""
LEAST = {torch.float64: 1e-11, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""What each format may be off in any case: a few of its last digits."""

Named = Mapping[str, Tensor]


def held_to(exact: Named, got: Named, plain: Named, dtype: torch.dtype) -> dict[str, Any]:
    """The part of what is allowed that each result is off, at most: its name and how much.

    Errors are the largest of a tensor's, over its largest number.

    Args:
        exact: in float64.
        got, plain: the same in `dtype`, of what is checked and of plain code.

    Raises:
        AssertionError: a result is further off, is not finite, has another shape, or is missing.
    """
    assert got.keys() == exact.keys(), f"{sorted(got.keys() ^ exact.keys())} are of one alone"
    theirs = {name: error(plain[name], exact[name]) for name in exact}
    theirs = {name: off if isfinite(off) else 0.0 for name, off in theirs.items()}  # plain code may overflow
    typical = statistics.median(theirs.values())
    parts: dict[str, float] = {}
    for name, wanted in exact.items():
        assert got[name].shape == wanted.shape, f"{name} is {tuple(got[name].shape)}, not {tuple(wanted.shape)}"
        allowed = TIMES * (theirs[name] + typical) + LEAST[dtype]
        off = error(got[name], wanted)
        assert off <= allowed, f"{name} is off by {off:.2g} of its largest number; {allowed:.2g} is allowed"
        parts[name] = off / allowed
    worst = max(parts, key=lambda name: parts[name])
    return {"nearest to its limit": worst, "part of it": round(parts[worst], 3)}


def error(got: Tensor, exact: Tensor) -> float:
    """The largest difference, over the largest number."""
    exact = exact.double()
    if not exact.numel():
        return 0.0
    largest = exact.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return float(((got.double() - exact).abs().max() / largest).item())
