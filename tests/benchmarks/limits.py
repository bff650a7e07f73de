"""How fast this machine could be: the rate of a large matrix product, and of reading memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from xt_blocks.kernels import onednn

from .measure import synchronizer

PRODUCT = "product"
READING = "memory"


@dataclass(frozen=True)
class Rates:
    """FLOPs and bytes a second."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Least:
    """What a piece of work cannot do without.

    Attributes:
        flops: of matrix products.
        bytes: that are read.
        span: how many different ones, read over and over; few of them stay in a cache.
    """

    flops: float
    bytes: float
    span: float

    def seconds(self, rates: Rates) -> float:
        """The time of the slower of the two; at best they overlap."""
        return max(self.flops / rates.flops, self.bytes / rates.bytes)

    def bound(self, rates: Rates) -> str:
        """Which of the two it is."""
        return PRODUCT if self.flops / rates.flops >= self.bytes / rates.bytes else READING


class Machine:
    """Measures its rates anew at each call, since other work on it changes them.

    Args:
        dtype: of the numbers that are multiplied.
        span: bytes that are read over and over.
        product: rows and columns of the matrices.
    """

    def __init__(self, device: str, dtype: torch.dtype, span: float, product: int = 2048) -> None:
        self.synchronize = synchronizer(device)
        self.matrix = torch.randn(product, product, device=device).to(dtype)
        self.result = torch.empty_like(self.matrix)
        self.numbers = torch.ones(max(1, int(span) // 4), device=device)

    def rates(self) -> Rates:
        rows = self.matrix.shape[0]
        product = min(self._best(multiply, 2) for multiply in self._products())
        reading = self._best(self.numbers.sum, 5)
        return Rates(2 * rows**3 / product, 4 * self.numbers.numel() / reading)

    def _products(self) -> Iterator[Callable[[], object]]:
        """Every library's product of the matrix with itself: the limit is the better one's."""
        yield lambda: torch.mm(self.matrix, self.matrix, out=self.result)
        if onednn.HAS_ONEDNN and self.matrix.is_cpu:
            yield lambda: onednn.RUN(self.matrix, self.matrix, None, *onednn.PLAIN)

    def _best(self, work: Callable[[], object], tries: int) -> float:
        seconds = []
        for _ in range(tries):
            self.synchronize()
            start = time.perf_counter()
            work()
            self.synchronize()
            seconds.append(time.perf_counter() - start)
        return min(seconds)
