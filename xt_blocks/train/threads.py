"""How many threads torch computes with.

Owns that number. A sum is split among the threads, so a run's last digits depend on it and it belongs to the
run's settings. torch's own choice is corrected in one case: it starts a thread for every core it sees, while a
container is often given the time of fewer; the rest would be stopped again and again in the middle of a step,
with the others waiting for them.
"""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path

import torch

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def limit_threads(quota: Path = CPU_QUOTA) -> int:
    """Take no more threads than this container's share of the cores, elsewhere as many as torch would.

    Returns how many they are.
    """
    cores = granted_cores(quota)
    if cores is not None and cores < torch.get_num_threads():
        torch.set_num_threads(cores)
    return torch.get_num_threads()


def resume_threads(saved: int, quota: Path = CPU_QUOTA) -> bool:
    """Take the number of threads a run was started with, where there are cores for them; says whether there are."""
    cores = granted_cores(quota) or os.cpu_count() or 1
    if saved > max(cores, torch.get_num_threads()):
        limit_threads(quota)
        return False
    torch.set_num_threads(saved)
    return True


def granted_cores(quota: Path) -> int | None:
    """The cores that Linux's control group file `quota` grants, rounded up; None without a limit."""
    try:
        granted, period = quota.read_text(encoding="ascii").split()
        return max(1, ceil(int(granted) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max": no limit
        return None
