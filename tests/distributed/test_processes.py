"""The harness itself: groups of any size one after another, and a rank that fails."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from .processes import RankFailed, run


def summed(number: int) -> tuple[int, int, float]:
    total = torch.tensor([float(number + dist.get_rank())])
    dist.all_reduce(total)
    return dist.get_rank(), dist.get_world_size(), total.item()


def fails_at_one() -> None:
    if dist.get_rank() == 1:
        raise ValueError("one is enough")


def test_each_rank_answers_and_groups_follow_each_other() -> None:
    assert run(summed, 2, 5) == [(0, 2, 11.0), (1, 2, 11.0)]
    assert run(summed, 1, 5) == [(0, 1, 5.0)]


def test_a_rank_that_raises_is_named_with_its_traceback() -> None:
    with pytest.raises(RankFailed, match=r"rank 1:[\s\S]*one is enough"):
        run(fails_at_one, 2)
    assert run(summed, 2, 0)[0][2] == 1.0
