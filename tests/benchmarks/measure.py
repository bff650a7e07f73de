"""Times in rounds, and what is said of them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")


def interleaved(rounds: Mapping[str, Callable[[], T]], runs: int) -> dict[str, list[T]]:
    """What each gives, called A B C A B C ..., so that what slows the machine for a while slows all of them.

    A first round, which warms up, is not counted.
    """
    out: dict[str, list[T]] = {name: [] for name in rounds}
    for _ in range(runs + 1):
        for name, once in rounds.items():
            out[name].append(once())
    return {name: values[1:] for name, values in out.items()}


def timed(work: Callable[[], object], device: str, repeats: int = 1) -> Callable[[], float]:
    """A round: seconds of `work`, the mean of so many repeats, garbage collected before and not meanwhile."""
    synchronize = synchronizer(device)

    def once() -> float:
        gc.collect()
        gc.disable()
        try:
            synchronize()
            start = time.perf_counter()
            for _ in range(repeats):
                work()
            synchronize()
            return (time.perf_counter() - start) / repeats
        finally:
            gc.enable()

    return once


def synchronizer(device: str) -> Callable[[], None]:
    """Waits until the device has done what it was given."""
    return torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None


@dataclass(frozen=True)
class Spread:
    """The quartiles of some values."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Between the values, linearly; of one value all three are this one."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """How many times as fast ours is, taken within each round."""
    return Spread.of([their / our for their, our in zip(theirs, ours, strict=True)])
