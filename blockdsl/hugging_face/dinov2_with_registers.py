"""DINOv2 with registers (Darcet et al., arXiv:2309.16588)."""

from __future__ import annotations

from .dinov2 import read_dinov2
from .family import Family

FAMILY = Family(
    model_types=("dinov2_with_registers",),
    architectures=("Dinov2WithRegistersForImageClassification",),
    base="Dinov2WithRegistersModel",
    prefix="dinov2_with_registers.",
    source="arXiv:2309.16588",
    read=lambda config: read_dinov2(config, "dinov2_with_registers.", registers=4),
)
