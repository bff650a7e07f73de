"""Ranks of several machines agree on which start of a job this is, whatever earlier starts have left in the store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from threading import Event

import pytest
import torch.distributed as dist

from xt_blocks.train.launch import _agreed_start


@pytest.mark.parametrize("last", range(3))
def test_all_ranks_find_the_same_name_and_each_start_another(last: int) -> None:
    store, found = dist.HashStore(), []
    for order in permutations(range(3)):
        late = Event()

        def of_rank(rank: int, late: Event = late) -> str:
            if rank == last:
                late.wait(5)
            return _agreed_start(store, rank, 3)

        with ThreadPoolExecutor(3) as pool:
            names = [pool.submit(of_rank, rank) for rank in order]
            late.wait(0.15)  # the others find what the late one had said before
            late.set()
            (name,) = {each.result(20) for each in names}
        found.append(name)
    assert len({*found}) == 6
