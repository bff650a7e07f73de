"""How much of a GPU's memory a piece of work takes."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch


def taken(work: Callable[[], object], device: str) -> int:
    """Do the work; the bytes by which it raises what torch's allocator holds at most. 0 on a CPU, which keeps no count."""
    if torch.device(device).type != "cuda":
        work()
        return 0
    gc.collect()
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - held
