"""How long each owner of a pass takes: on a CPU by the clock, on a GPU by events among its kernels, without waiting."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch


class Stopwatch:
    """When each owner's time began, as the device has it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.began: list[tuple[str, Any]] = []

    def begin(self, owner: str) -> None:
        self.began.append((owner, self._now()))

    def seconds(self) -> dict[str, float]:
        """Of each owner, from when it began to the next one; the last has none."""
        synchronize(self.device)
        out: defaultdict[str, float] = defaultdict(float)
        for (owner, start), (_, stop) in zip(self.began, self.began[1:], strict=False):
            out[owner] += start.elapsed_time(stop) / 1000 if self.device.type == "cuda" else stop - start
        return dict(out)

    def _now(self) -> Any:
        if self.device.type == "cuda":
            event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self.device))
            return event
        synchronize(self.device)
        return time.perf_counter()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def timed(device: torch.device, action: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds that an action takes until the device is done, and what it returns."""
    synchronize(device)
    began = time.perf_counter()
    out = action()
    synchronize(device)
    return time.perf_counter() - began, out
