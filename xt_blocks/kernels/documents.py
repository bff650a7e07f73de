"""Packed documents: several texts side by side in one row, each of which is read as if it were alone.

Owns where each begins and ends. Attention compares places with these, so that no mask of pairs is held; a layer with a
state reads each document as a row of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .tensors import check_tensor, whole_numbers


@dataclass(frozen=True)
class Documents:
    """The documents of a batch.

    Attributes:
        starts: (batch, seq) int64, the place of the first token of each token's document.
        ends: (batch, seq) int64, the place after its last.
    """

    starts: Tensor
    ends: Tensor

    @classmethod
    def of(cls, doc_ids: Tensor) -> Documents:
        """`doc_ids: (batch, seq)` int, which document each token is of; where it changes, another begins."""
        places = torch.arange(doc_ids.shape[1], device=doc_ids.device, dtype=torch.int64)
        changes = doc_ids[:, 1:] != doc_ids[:, :-1]
        first, end = torch.zeros_like(doc_ids[:, :1]), torch.full_like(doc_ids[:, :1], doc_ids.shape[1])
        starts = torch.cat((first.long(), places[1:] * changes), dim=1).cummax(dim=1).values
        ends = torch.cat((torch.where(changes, places[1:], doc_ids.shape[1]), end.long()), dim=1)
        return cls(starts, ends.flip(1).cummin(dim=1).values.flip(1))

    def positions(self, mask: Tensor | None) -> Tensor:
        """(batch, seq) int: places counted from each document's first real token, `mask: (batch, seq)` bool."""
        places = torch.arange(self.starts.shape[1], device=self.starts.device, dtype=torch.int64)
        if mask is None:
            return places - self.starts
        before = mask.cumsum(dim=1) - mask.long()  # real tokens before each place
        first = mask & (before == before.gather(1, self.starts))
        return places - (places * first).cummax(dim=1).values.maximum(self.starts)

    def same(self, offset: int) -> Tensor:
        """(batch, seq) bool: whether the token so many places before (after: negative) is of the same document."""
        places = torch.arange(self.starts.shape[1], device=self.starts.device, dtype=torch.int64) - offset
        return (places >= self.starts) & (places < self.ends)

    def longest(self) -> int:
        """Tokens of the longest document."""
        return int((self.ends - self.starts).max()) if self.starts.numel() else 0

    # Documents as rows ----------------------------------------------------------------------------------------------

    @cached_property
    def _rows(self) -> tuple[Tensor, int, int]:
        """Where each token goes among (documents · longest), and these two numbers."""
        places = torch.arange(self.starts.shape[1], device=self.starts.device, dtype=torch.int64)
        within, longest = (places - self.starts).flatten(), self.longest()
        number = (within == 0).cumsum(dim=0) - 1
        return number * longest + within, int((within == 0).sum()), longest

    def apart(self, x: Tensor) -> Tensor:
        """`x: (batch, seq, ...)` → (documents, longest, ...), with zeros, or False, after the end of each."""
        places, count, longest = self._rows
        flat = x.new_zeros(count * longest, *x.shape[2:]).index_copy(0, places, x.flatten(0, 1))
        return flat.view(count, longest, *x.shape[2:])

    def joined(self, y: Tensor) -> Tensor:
        """`y: (documents, longest, ...)` → (batch, seq, ...)."""
        return y.flatten(0, 1).index_select(0, self._rows[0]).view(*self.starts.shape, *y.shape[2:])

    def real(self, mask: Tensor | None) -> Tensor:
        """(documents, longest) bool, which of their places are real tokens, from `mask: (batch, seq)`; None: all."""
        return self.apart(torch.ones_like(self.starts, dtype=torch.bool) if mask is None else mask)


def checked_doc_ids(doc_ids: Tensor | None, cu_seqlens: Tensor | None, x: Tensor) -> Tensor | None:
    """(batch, seq) int: which document each token of `x: (batch, seq, ...)` is of; None: nothing is said.

    Args:
        doc_ids: (batch, seq) int, or (seq,) for all rows.
        cu_seqlens: (documents + 1,) int, where the documents of all rows, one after another, begin and end.

    Raises:
        ValueError: both are given, or one is of another type or shape, or does not fit x.
    """
    if doc_ids is not None and cu_seqlens is not None:
        raise ValueError("doc_ids and cu_seqlens say the same; give one")
    batch, seq = x.shape[:2]
    if cu_seqlens is not None:
        check_tensor("cu_seqlens", cu_seqlens, x)
        ends = whole_numbers("cu_seqlens", cu_seqlens, " (documents + 1,)")
        if ends.ndim != 1 or len(ends) < 2 or ends[0] != 0 or ends[-1] != batch * seq or (ends.diff() < 0).any():
            raise ValueError(
                f"cu_seqlens must go up from 0 to {batch * seq}, the number of tokens, not {ends.tolist()}"
            )
        places = torch.arange(batch * seq, device=x.device, dtype=torch.int64)
        return torch.searchsorted(ends.long(), places, right=True).reshape(batch, seq)
    if doc_ids is None:
        return None
    check_tensor("doc_ids", doc_ids, x)
    doc_ids = whole_numbers("doc_ids", doc_ids, lambda: f" {(batch, seq)}")
    if doc_ids.shape not in (x.shape[:2], x.shape[1:2]):
        raise ValueError(f"doc_ids must be whole numbers {(batch, seq)}, not {tuple(doc_ids.shape)}")
    return doc_ids.expand(batch, seq)
