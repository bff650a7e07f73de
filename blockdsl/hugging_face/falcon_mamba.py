"""Falcon-Mamba (arXiv:2410.05355): Mamba with norms, without gains, of steps, B and C."""

from __future__ import annotations

from .config import Config
from .family import Component, Family
from .mamba import read_mamba


def _read(config: Config) -> dict[str, Component]:
    eps = config.number("mixer_rms_eps", 1e-6)
    return read_mamba(config, {"mamba_rmsnorm": "plain", "mamba_rmsnorm_eps": eps})


FAMILY = Family(
    model_types=("falcon_mamba",),
    architectures=("FalconMambaForCausalLM",),
    base="FalconMambaModel",
    prefix="backbone.",
    source="arXiv:2410.05355",
    read=_read,
)
