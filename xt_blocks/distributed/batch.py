"""How a batch is shared: the rows of each micro-batch that a rank takes, its tokens of these, and what they count.

Losses of shares are weighted so that their sum is the mean over all of a batch's targets, whatever the mesh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blockdsl.graph.tokens import input_scheme

from ..generation.autoregressive import shifted
from ..kernels.masks import check_mask
from .ranks import Ranks

if TYPE_CHECKING:
    from blockdsl import BlockGraph

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

    def check(self, graph: BlockGraph) -> None:
        """Judge the whole batch, which every rank has: one that found a fault in its share alone would leave the others
        waiting.

        Args:
            graph: the whole model's.

        Raises:
            TypeError: something is no tensor.
            ValueError: a shape or type is wrong, a token is none of the model's, or rows are too long for it.
        """
        streams = graph.streams()
        start = (text := streams.get("decoder", graph)).nx.nodes[text.start]
        shifted(self.tokens, self.mask, IGNORED, 0)
        _check_range("tokens", self.tokens, start["num_tokens"])
        if input_scheme(text) == "absolute" and (seq := self.tokens.shape[1] - 1) > start["max_seq_len"]:
            raise ValueError(f"the sequence has {seq} tokens; max_seq_len is {start['max_seq_len']}")
        if self.source is not None:
            if len(self.source) != len(self.tokens):
                raise ValueError(f"source has {len(self.source)} rows, and tokens {len(self.tokens)}")
            check_mask("source_mask", self.source_mask, self.source)
            if (encoder := streams["encoder"]).reads == "tokens":
                _check_range("source", self.source, encoder.nx.nodes[encoder.start]["num_tokens"])

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


def _check_range(name: str, tokens: Tensor, count: int) -> None:
    known = tokens[tokens != IGNORED]
    if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < count:
        raise ValueError(f"{name} are from 0 to {count - 1}; these go from {known.min()} to {known.max()}")


def targets_in(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """(batch, seq) bool, which tokens are predicted."""
    counted = tokens[:, 1:] != IGNORED
    return counted if mask is None else counted & mask[:, 1:] & mask[:, :-1]
