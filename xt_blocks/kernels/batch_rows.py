"""What a pass knows of the batch that its rows are some of, so that it computes what a pass over all of them does.

torch draws what is dropped for all rows at once, in the order of calls: another share of the rows, or of the blocks,
gives other numbers. Inside `rows_of_batch` a row's numbers depend on the batch's seed, the row's place, the block and
how often it has drawn before; and what is counted over rows is counted over those of all ranks.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .compat import not_compiled


def _itself(x: Tensor) -> Tensor:
    return x


@dataclass
class BatchRows:
    """The rows of one pass. A backward pass that recomputes blocks has the same.

    Attributes:
        places: of these rows in the whole batch.
        seed: of what is dropped in the batch; None: torch's random numbers are drawn.
        total: the sum of a tensor over all ranks that have rows of the batch; without a gradient.
        tokens: the place of their tokens in the whole rows, of so many; None: all of them are here.
    """

    places: Sequence[int]
    seed: int | None = None
    total: Callable[[Tensor], Tensor] = _itself
    tokens: tuple[slice, int] | None = None
    _block: str = field(default="", init=False)
    _calls: int = field(default=0, init=False)

    def begin(self, block: str) -> None:
        """What is drawn from now on is this block's."""
        self._block, self._calls = block, 0

    def kept(
        self, shape: Sequence[int], p: float, device: torch.device, tokens: int | None, keys: int | None
    ) -> Tensor:
        """(rows, ...) bool: what stays where each is dropped with probability p.

        Args:
            shape: that of the rows' tensor.
            tokens: its axis of tokens. With only some of a row's they are drawn for all, and cut.
            keys: its axis of keys, which are those up to the last token that is here.
        """
        whole, cut = list(shape), [slice(None)] * len(shape)
        if self.tokens is not None:
            own, length = self.tokens
            if tokens is not None:
                whole[tokens], cut[tokens] = length, own
            if keys is not None:
                whole[keys], cut[keys] = shape[keys] + length - own.stop, slice(shape[keys])
        generator = torch.Generator(device)
        out = torch.empty(tuple(whole), dtype=torch.bool, device=device)
        for row, seed in zip(out, self._seeds(), strict=True):
            row.bernoulli_(1 - p, generator=generator.manual_seed(seed))
        return out[tuple(cut)]

    def _seeds(self) -> Iterator[int]:
        self._calls += 1
        for place in self.places:
            text = f"{self.seed}:{self._block}:{self._calls}:{place}"
            yield int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class _Active(threading.local):
    """The rows of the pass that runs in a thread; not a ContextVar, which torch's compiler does not read."""

    rows: BatchRows | None = None


_ACTIVE = _Active()


def batch_rows() -> BatchRows | None:
    """Those of the pass that runs; None: it knows of no other rows."""
    return _ACTIVE.rows


@contextmanager
def rows_of_batch(rows: BatchRows | None) -> Iterator[None]:
    """Inside, passes have these rows of a batch; None: they know of no others."""
    before, _ACTIVE.rows = _ACTIVE.rows, rows
    try:
        yield
    finally:
        _ACTIVE.rows = before


def draws_by_row() -> bool:
    """Whether what is dropped is drawn for each row by itself."""
    rows = batch_rows()
    return rows is not None and rows.seed is not None


def kept_by_row(
    shape: Sequence[int], p: float, device: torch.device, tokens: int | None = None, keys: int | None = None
) -> Tensor | None:
    """`BatchRows.kept` of the pass that runs; None if it draws torch's numbers, or the tensor is not of its rows."""
    return _kept(shape, p, device, tokens, keys) if draws_by_row() else None


@not_compiled
def _kept(shape: Sequence[int], p: float, device: torch.device, tokens: int | None, keys: int | None) -> Tensor | None:
    rows = batch_rows()
    if rows is None or shape[0] != len(rows.places):
        return None
    return rows.kept(shape, p, device, tokens, keys)


def total_of_batch(counts: Tensor) -> Tensor:
    """The sum of what was counted in the rows of the pass that runs, over all ranks that have rows of the batch."""
    return counts if batch_rows() is None else _total(counts)


@not_compiled
def _total(counts: Tensor) -> Tensor:
    rows = batch_rows()
    return counts if rows is None else rows.total(counts)
