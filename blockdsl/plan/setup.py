"""How a model is to be trained: sizes of a step, precision, optimiser, schedule, and the memory of a device."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UserError, did_you_mean, shortened
from ..registry.options import real, whole
from .memory import CHECKPOINTING
from .schedule import SCHEDULES

PRECISIONS = {"fp32": 4, "bf16": 2}
"""What blocks compute in → bytes of a number. With bf16 the stream, parameters, gradients and what the optimiser
keeps stay float32: it is torch's autocast, and FSDP's policy where ranks share parameters."""
OPTIMIZERS = ("adamw", "muon", "sgd")

_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{binary}B": (1024 if binary else 1000) ** power
    for power, prefix in enumerate("KMGTP", 1)
    for binary in ("", "i")
}


def read_bytes(text: str | int | float) -> int:
    """`80GB` as bytes, `80GiB` as 80·2³⁰; a number, which is no text, is bytes.

    Raises:
        UserError: it is no size, or its unit is missing or unknown.
    """
    if isinstance(text, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*", text)
        if not found:
            raise UserError(f"memory must be a size such as 80GB, not '{shortened(text)}'")
        if not found[2]:
            raise UserError(f"memory '{shortened(text)}' names no unit: {found[1]}GB? ({found[1]}B are bytes)")
        units = {unit.lower(): factor for unit, factor in _UNITS.items()}
        if found[2].lower() not in units:
            hint = did_you_mean(found[2], _UNITS) or "as in 80GB or 80GiB"
            raise UserError(f"memory '{shortened(text)}': unknown unit '{found[2]}'; {hint}")
        text = float(found[1]) * units[found[2].lower()]
    return int(real("memory", text, above=0))


@dataclass(frozen=True)
class Setup:
    """How a model is to be trained.

    Args:
        seq_len, batch: tokens a row, and rows of a step over all ranks.
        context_len: tokens of the context a row; None: seq_len.
        precision: "fp32" or "bf16", what blocks compute in.
        optimizer: "adamw", "muon" for the matrices of blocks, or "sgd" without momentum.
        schedule: of the pipeline, one of `schedule.SCHEDULES`.
        checkpoint: "none", "block" or "stage"; None: the first of these with which a mesh fits.
        micro_batch: rows of a micro-batch; None: as many as fit, with at least four micro-batches for each stage.
        memory: bytes of a device, or a text such as "80GB"; None: without a limit.
        reserve: share of the memory left to what is not counted: temporaries, buffers of messages, the allocator.

    Raises:
        UserError: a value is out of range, or a name is unknown.
    """

    seq_len: int
    batch: int
    context_len: int | None = None
    precision: str = "bf16"
    optimizer: str = "adamw"
    schedule: str = "1f1b"
    checkpoint: str | None = None
    micro_batch: int | None = None
    memory: int | str | None = None
    reserve: float = 0.1

    def __post_init__(self) -> None:
        for name in ("seq_len", "batch", "context_len", "micro_batch"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, whole(name, getattr(self, name), 1))
        for name, known in (
            ("precision", PRECISIONS),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("checkpoint", CHECKPOINTING),
        ):
            value = getattr(self, name)
            if value not in known and not (name == "checkpoint" and value is None):
                hint = did_you_mean(str(value), known)
                raise UserError(f"{name} must be one of {', '.join(known)}, not '{value}'" + (f"; {hint}" * bool(hint)))
        real("reserve", self.reserve, least=0, below=1)
        if self.memory is not None:
            object.__setattr__(self, "memory", read_bytes(self.memory))

    @property
    def item(self) -> int:
        """Bytes of a number that blocks compute with."""
        return PRECISIONS[self.precision]

    @property
    def usable(self) -> float | None:
        """Bytes of a device that may be planned for."""
        return None if self.memory is None else float(self.memory) * (1 - self.reserve)
