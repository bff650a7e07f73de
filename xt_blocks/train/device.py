"""What a device could do at best, and the memory that is in use: what a run's speed is held against.

Owns the published peaks and the measurement where there is none. Leaves the run's own FLOPs to the graph.
"""

from __future__ import annotations

import sys
import time

import torch

PEAKS: dict[str, tuple[float, float]] = {
    "H100 PCIe": (51, 756),
    "H100 NVL": (60, 835),
    "B200": (75, 2250),
    "H200": (67, 989),
    "H100": (67, 989),
    "A100": (19.5, 312),
    "L40S": (91.6, 362),
    "L4": (30.3, 121),
    "A10": (31.2, 125),
    "RTX 4090": (82.6, 165.2),
    "RTX 3090": (35.6, 71),
    "MI300X": (163.4, 1307.4),
}
"""Part of a device's name → its makers' TFLOP/s in float32, and in bfloat16 without sparsity. The first fit counts."""

SIZES = {"cpu": 512}
"""Rows of the square matrices that are multiplied to measure a device that is not in the table; 4096 elsewhere."""


def peak_flops(device: str, precision: str) -> tuple[float, str]:
    """FLOP/s of one device at best, and in words where that is from.

    Args:
        precision: "fp32" or "bf16", as of TrainSettings.
    """
    if (known := published_peak(device, precision)) is not None:
        return known
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return _measured(torch.device(device), dtype), "measured on a product of matrices"


def published_peak(device: str, precision: str) -> tuple[float, str] | None:
    """The same where the device is in the table; None where it is not."""
    of = torch.device(device)
    name = torch.cuda.get_device_name(of) if of.type == "cuda" else ""
    for known, (fp32, bf16) in PEAKS.items():
        if known in name:
            return (bf16 if precision == "bf16" else fp32) * 1e12, f"{known}, as published"
    return None


def _measured(device: torch.device, dtype: torch.dtype) -> float:
    size = SIZES.get(device.type, 4096)
    one = torch.ones(size, size, device=device, dtype=dtype)
    torch.mm(one, one)[0, 0].item()  # warm, and finished
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        torch.mm(one, one)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def memory_in_use(device: str) -> int | None:
    """Bytes at most so far: of a GPU, allocated by torch; of a CPU, what the process has held. None where unknown."""
    of = torch.device(device)
    if of.type == "cuda":
        return torch.cuda.max_memory_allocated(of)
    if of.type != "cpu":
        return None
    try:
        import resource
    except ImportError:  # Windows
        return None
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024
