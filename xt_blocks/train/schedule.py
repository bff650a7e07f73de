"""The learning rate of each step: a linear warm-up, then a cosine down to a tenth.

Owns the shape of the schedule. A pure function of the step and the total, so a resumed run follows the
same curve. When a resumed run is given more steps, the curve is the longer run's from that step on: the
rate rises again to the longer cosine, and the steps already done stay as they were.
"""

from __future__ import annotations

from math import cos, pi

FINAL_SHARE = 0.1
WARMUP_SHARE = 0.05
WARMUP_STEPS = 100


def learning_rate(step: int, steps: int, peak: float) -> float:
    """The rate for step `step` (0 for the first) of `steps`."""
    warmup = max(1, min(WARMUP_STEPS, round(WARMUP_SHARE * steps)))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    share = FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + cos(pi * progress))
    return peak * share
