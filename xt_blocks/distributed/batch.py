"""How a batch is shared: the rows of each micro-batch that a rank takes, its tokens of these, and what they count.

Losses of shares are weighted so that their sum is the mean over all of a batch's targets, whatever the mesh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .ranks import Ranks

IGNORED = -100
"""A target that does not count."""


@dataclass(frozen=True)
class Batch:
    """A whole batch, the same on every rank.

    Attributes:
        tokens: (batch, seq + 1) int.
        mask: (batch, seq + 1) bool, True = a real token; None: all are.
        source: what an encoder reads of each row, (batch, ...); None: there is none.
        source_mask: (batch, source) bool; None: all of it is real.
    """

    tokens: Tensor
    mask: Tensor | None = None
    source: Tensor | None = None
    source_mask: Tensor | None = None

    def pieces(self, ranks: Ranks, count: int, alike: bool) -> list[dict[str, Any]]:
        """Of each of so many micro-batches the inputs of a rank's `StageLoss`.

        A rank without rows of one runs one that does not count, since all ranks gather parameters alike.

        Args:
            alike: they have equally many rows, as schedules of a pipeline want it.

        Raises:
            ValueError: no token of the batch is a target.
        """
        targets = int(targets_in(self.tokens, self.mask).sum())
        if not targets:
            raise ValueError("no token of the batch is a target: it is all padding")
        micro = torch.arange(len(self.tokens), device="cpu", dtype=torch.int64).tensor_split(count)
        own = [rows[ranks.rows(len(rows))] for rows in micro]
        length = max(1, *(len(rows) for rows in own)) if alike else 1
        mask = self.mask
        if mask is None and alike and any(len(rows) < length for rows in own):
            mask = torch.ones_like(self.tokens, dtype=torch.bool)
        return [self._piece(ranks, mask, targets, rows, length) for rows in own]

    def _piece(
        self, ranks: Ranks, mask: Tensor | None, targets: int, rows: Tensor, length: int
    ) -> dict[str, Tensor | None]:
        """
        Args:
            targets: of the whole batch.
            rows: (rows,) int, which are in it.
            length: how many it has at least.
        """
        part = ranks.tokens(self.tokens.shape[1] - 1)
        further = rows.new_full((max(0, length - len(rows)),), -1)
        places = torch.cat((rows, further))
        some, seen, before = self.tokens[places, part.start : part.stop + 1].clone(), None, None
        some[len(rows) :, 1:] = IGNORED
        share = len(rows) * (part.stop - part.start) / self.tokens[:, 1:].numel()
        if mask is not None:
            whole = mask[places].clone()
            whole[len(rows) :] = False
            seen, before = whole[:, part.start : part.stop + 1], whole[:, : part.start] if ranks.mesh.cp > 1 else None
            share = int(seen[:, :-1].sum()) / int(mask[:, :-1].sum())
        dtype = torch.get_default_dtype()
        found = {
            "tokens": some,
            "mask": seen,
            "mask_before": before,
            "weight": torch.full((1,), 1 / targets, device="cpu", dtype=dtype),
            "share": torch.full((1,), share, device="cpu", dtype=dtype),
        } | self._source(rows, places)
        moved = {name: None if value is None else value.to(ranks.device) for name, value in found.items()}
        return {**moved, "places": places}

    def _source(self, rows: Tensor, places: Tensor) -> dict[str, Tensor | None]:
        """What is read of the source; `rows` of it count."""
        if self.source is None:
            return {}
        mask = self.source_mask
        share = len(rows) / len(self.source) if mask is None else int(mask[rows].sum()) / int(mask.sum())
        return {
            "source": self.source[places],
            "source_mask": None if mask is None else mask[places],
            "source_share": torch.full((1,), share, device="cpu", dtype=torch.get_default_dtype()),
        }


def targets_in(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """(batch, seq) bool, which tokens are predicted."""
    counted = tokens[:, 1:] != IGNORED
    return counted if mask is None else counted & mask[:, 1:] & mask[:, :-1]
