"""What a contestant is built for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

BFLOAT16 = ("autocast", "bfloat16")


@dataclass(frozen=True)
class Setting:
    """Sizes of a model and of what is done with it.

    Attributes:
        seq: tokens a row; of a prompt, when something is generated.
        new: tokens to generate after them.
        precision: "float32", "autocast" (float32 weights, bfloat16 arithmetic) or "bfloat16" (weights too).
        device: torch's name of it.
    """

    seq: int = 1024
    batch: int = 1
    new: int = 0
    vocabulary: int = 256
    dim: int = 512
    depth: int = 6
    heads: int = 8
    precision: str = "float32"
    device: str = "cpu"

    @property
    def length(self) -> int:
        """The longest sequence the model sees."""
        return self.seq + self.new

    @property
    def dim_head(self) -> int:
        return self.dim // self.heads

    @property
    def weights(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    @property
    def arithmetic(self) -> torch.dtype:
        return torch.bfloat16 if self.precision in BFLOAT16 else torch.float32

    def quick(self) -> Setting:
        """The same in small: it tells that a case runs, and nothing about speed."""
        return replace(
            self,
            seq=min(self.seq, 24),
            batch=min(self.batch, 2),
            new=min(self.new, 4),
            vocabulary=min(self.vocabulary, 64),
            dim=64,
            depth=min(self.depth, 2),
            heads=2,
        )

    def brief(self) -> Setting:
        """The same over few tokens: what a process does before its memory is looked at."""
        return replace(self, seq=min(self.seq, 8), new=min(self.new, 2))

    def __str__(self) -> str:
        generated = f" + {self.new} new" if self.new else ""
        precision = "" if self.precision == "float32" else f", {self.precision}"
        return (
            f"{self.batch} x {self.seq}{generated} tokens of {self.vocabulary:,}, "
            f"dim {self.dim}, depth {self.depth}, heads {self.heads}{precision}"
        )
