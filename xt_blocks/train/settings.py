"""What defines a run: everything its numbers depend on.

Owns the settings, their checks and their JSON. Leaves the command line's flags and defaults to
`xt_blocks.cli.train`, and the model they describe to `model`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import torch

from blockdsl.errors import UserError

from ..runtime.devices import device_of

MAX_STEP_TOKENS = 2**24
"""The most tokens in one step; more is probably a typo, and would exhaust memory."""

CHOICES = {"precision": ("fp32", "bf16"), "optimizer": ("adamw", "muon")}
DEVICE_TYPES = ("cpu", "cuda", "mps", "xpu")


@dataclass(frozen=True)
class TrainSettings:
    """The settings of one run; the same settings on the same machine give the same numbers.

    Args:
        pattern: the canonical text of the pattern.
        text: absolute paths of the text files; None for the standard library's sources.
        text_digest: of the text, or the tokens, as it was when the run began.
        dim, heads: width of the model and its attention heads.
        seq_len: tokens of context in a training sequence.
        batch: sequences per step.
        steps: steps in all: the length of the learning-rate schedule.
        minutes: the time that `steps` was estimated from, or None.
        lr: the highest learning rate.
        seed: of the weights, the batches and dropout.
        device: as torch spells it: "cpu", "cuda:1".
        threads: that torch computes with; sums are split among them, so their last digits depend on it.
        options: further settings of the stack, given with --set.
        precision: "fp32"; or "bf16": passes compute in bfloat16 where that is safe (torch.autocast), while weights,
            gradients and the optimiser's state are float32.
        compile: each block by torch.compile.
        accumulate: parts that a batch is computed in, one after the other.
        optimizer: "adamw" or "muon", as `make_optimizer` explains.
        val_every: steps between evaluations; None: a few in the run.
        patience: stop after so many evaluations without a better one, and keep the best; None: never.
        data: absolute path of the folder of tokens; None: `text` is read, as bytes.
        num_tokens: the vocabulary's size.
        end: the token that ends a document, if any.
    """

    pattern: str
    text: tuple[str, ...] | None
    text_digest: str
    dim: int
    heads: int
    seq_len: int
    batch: int
    steps: int
    minutes: float | None
    lr: float
    seed: int
    device: str
    threads: int
    options: dict[str, Any]
    precision: str = "fp32"
    compile: bool = False
    accumulate: int = 1
    optimizer: str = "adamw"
    val_every: int | None = None
    patience: int | None = None
    data: str | None = None
    num_tokens: int = 256
    end: int | None = None

    def check(self) -> None:
        """Raises UserError, in the words of the flags, for an invalid value."""
        for flag in ("dim", "heads", "seq_len", "batch", "steps", "accumulate", "val_every", "patience"):
            value = getattr(self, flag)
            if value is not None and value < 1:
                raise UserError(f"--{flag.replace('_', '-')} must be at least 1, not {value}")
        if self.minutes is not None and not (isfinite(self.minutes) and self.minutes > 0):
            raise UserError(f"--minutes must be more than 0, not {self.minutes:g}")
        if not (isfinite(self.lr) and self.lr > 0):
            raise UserError(f"--lr must be more than 0, not {self.lr:g}")
        if self.batch * self.seq_len > MAX_STEP_TOKENS:
            raise UserError(
                f"--batch {self.batch} of --seq-len {self.seq_len} is {self.batch * self.seq_len:,} "
                f"{'bytes' if self.data is None else 'tokens'} in one step; at most {MAX_STEP_TOKENS:,}"
            )
        if self.accumulate > self.batch:
            raise UserError(
                f"--accumulate {self.accumulate} is more than --batch {self.batch}, the sequences to divide"
            )
        for flag, known in CHOICES.items():
            if (value := getattr(self, flag)) not in known:
                raise UserError(f"--{flag} {value}: there are {' and '.join(known)}")
        if self.optimizer == "muon" and not hasattr(torch.optim, "Muon"):
            raise UserError(f"--optimizer muon needs torch 2.9 or later, and this is torch {torch.__version__}")
        check_device(self.device)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TrainSettings:
        """Raises ValueError (of which JSONDecodeError is one) or TypeError when `text` is no such JSON."""
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("not an object")
        files = data.get("text")
        settings = cls(**{**data, "text": None if files is None else tuple(files)})
        for name in ("dim", "heads", "seq_len", "batch", "steps", "seed", "threads", "accumulate", "num_tokens"):
            if type(value := getattr(settings, name)) is not int:
                raise ValueError(f"{name} is {value!r}, not a whole number")
        return settings


def check_device(name: str) -> None:
    """Raises UserError when torch cannot put a tensor on this device here, or nothing is trained there."""
    if device_of(name, f"--device {name}").type not in DEVICE_TYPES:
        raise UserError(f"--device {name}: cannot train there; try cpu or cuda")
