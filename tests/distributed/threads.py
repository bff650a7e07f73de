"""Ranks that are threads of this process, which sum tensors in memory: every option is tried without a process.

What a rank draws at random is not its own here; that is for `processes`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from xt_blocks.distributed import tensor


class ThreadGroup:
    """Stands for a process group: rank and size, and sums over its ranks."""

    def __init__(self, ranks: int) -> None:
        self.ranks, self.own = ranks, threading.local()
        self.given: list[Tensor] = [torch.empty(0)] * ranks
        self.barrier = threading.Barrier(ranks, timeout=60)
        self.sent = 0  # numbers that the first rank has handed in

    def rank(self) -> int:
        rank: int = self.own.rank
        return rank

    def size(self) -> int:
        return self.ranks

    def add_up(self, x: Tensor, group: ThreadGroup) -> None:
        assert group is self
        self.sent += x.numel() if self.rank() == 0 else 0
        self.given[self.rank()] = x.detach().clone()
        self.barrier.wait()
        total = sum(self.given[1:], self.given[0])
        self.barrier.wait()
        with torch.no_grad():
            x.copy_(total)

    def total(self, x: Tensor) -> Tensor:
        """The sum over ranks."""
        out = x.detach().clone()
        self.add_up(out, self)
        return out

    def gather(self, out: Tensor, x: Tensor) -> None:
        """All ranks' tensors, joined along the first axis."""
        assert x.is_contiguous()
        assert out.is_contiguous()
        self.sent += out.numel() if self.rank() == 0 else 0
        self.given[self.rank()] = x.detach().clone()
        self.barrier.wait()
        out.copy_(torch.cat(self.given))
        self.barrier.wait()

    def scatter(self, out: Tensor, x: Tensor) -> None:
        """This rank's part of the sum over ranks."""
        assert x.is_contiguous()
        out.copy_(self.total(x).chunk(self.ranks)[self.rank()])


def of_threads(monkeypatch: pytest.MonkeyPatch, ranks: int, function: Callable[[Any], Any]) -> list[Any]:
    """What `function(group)` returns on each rank."""
    group = ThreadGroup(ranks)
    monkeypatch.setattr(tensor, "dist", SimpleNamespace(all_reduce=group.add_up, ProcessGroup=ThreadGroup))
    out: list[Any] = [None] * ranks
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        group.own.rank = rank
        try:
            out[rank] = function(group)
        except BaseException as error:
            errors.append(error)
            group.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    broken = threading.BrokenBarrierError
    for error in sorted(errors, key=lambda error: isinstance(error, broken)):
        raise error
    return out
