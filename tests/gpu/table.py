"""All checks, the most important first: where the time is over, those at the end are left out."""

from __future__ import annotations

from . import decoding, devices, kernels, options, ranks, scans, speed, training
from .check import Check

_ALL = [
    check for room in (kernels, scans, options, decoding, training, ranks, devices, speed) for check in room.checks()
]

CHECKS: dict[str, Check] = {check.name: check for check in sorted(_ALL, key=lambda check: check.later)}
