"""How many threads torch computes with.

Owns one correction: torch starts a thread for every core it sees, while a container is often given the time of
fewer. The rest would be stopped again and again in the middle of a step, and the others wait for them.
"""

from __future__ import annotations

from math import ceil
from pathlib import Path

import torch

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def limit_threads(quota: Path = CPU_QUOTA) -> None:
    """Take no more threads than this container's share of the cores; elsewhere do nothing."""
    cores = granted_cores(quota)
    if cores is not None and cores < torch.get_num_threads():
        torch.set_num_threads(cores)


def granted_cores(quota: Path) -> int | None:
    """The cores that Linux's control group file `quota` grants, rounded up; None without a limit."""
    try:
        granted, period = quota.read_text(encoding="ascii").split()
        return max(1, ceil(int(granted) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max": no limit
        return None
