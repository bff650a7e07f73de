"""What comes out of a plan for one mesh: each rank's bytes and messages, and how the ranks wait."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .mesh import Mesh
    from .stages import PipelineStage
    from .traffic import Sent


@dataclass(frozen=True)
class Share:
    """What each rank at one place along pp has, in bytes, and sends in a step.

    Attributes:
        stages: those it runs.
        parameters: numbers of its parameters, of which it keeps 1 / (fsdp · cp).
        parameter_bytes, gradient_bytes, optimizer_bytes: kept from step to step.
        gathered_bytes: what is there for a while beside that, of parameters and gradients; see `search`.
        activation_bytes: by checkpointing, of all micro-batches that are held at once, with weights as blocks compute.
        cache_bytes: of keys, values and states of one row of `seq_len` tokens, to decode with.
        flops: of a step, without what is computed again.
        sent: by kind of link.
        unknown: titles of kinds that do not say what they save, which `activation_bytes` leaves out.
    """

    stages: tuple[PipelineStage, ...]
    parameters: int
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    gathered_bytes: int
    activation_bytes: Mapping[str, int]
    cache_bytes: int
    flops: int
    sent: tuple[Sent, ...]
    unknown: tuple[str, ...]

    def memory(self, checkpoint: str) -> int:
        """Bytes of all that training holds at once."""
        kept = self.parameter_bytes + self.gradient_bytes + self.optimizer_bytes
        return kept + self.gathered_bytes + self.activation_bytes[checkpoint]


@dataclass(frozen=True)
class MeshPlan:
    """A model on one mesh.

    Attributes:
        micro_batch, micro_batches: rows of each, and how many a rank computes in a step.
        checkpoint: what is computed again.
        shares: by place along pp.
        bubble: share of a step in which a rank of the pipeline waits, were its stages equal.
        balance: mean FLOPs of a rank over the most that one has.
        fits: whether the fullest rank's memory suffices; None: there is no limit.
        notes: on layers that are whole on every rank.
    """

    mesh: Mesh
    micro_batch: int
    micro_batches: int
    checkpoint: str
    shares: tuple[Share, ...]
    bubble: float
    balance: float
    fits: bool | None
    notes: tuple[str, ...]

    @property
    def memory(self) -> int:
        """Bytes of the fullest rank."""
        return max(share.memory(self.checkpoint) for share in self.shares)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Titles of the kinds whose activations are left out."""
        return tuple(dict.fromkeys(title for share in self.shares for title in share.unknown))

    @property
    def useful(self) -> float:
        """Share of the devices' time that is neither waiting nor computing again, by the formulas."""
        again = 1.0 if self.checkpoint == "none" else 3 / 4
        return (1 - self.bubble) * self.balance * again

    @property
    def sent(self) -> int:
        """Bytes that the busiest rank sends in a step."""
        return max(sum(message.sent for message in share.sent) for share in self.shares)
