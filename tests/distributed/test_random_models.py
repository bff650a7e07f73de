"""Random patterns, options and meshes train as one process does, or are refused in words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, event, given

from blockdsl import UserError
from blockdsl.plan.mesh import Mesh

from ..properties.models import examples
from .processes import run as run_ranks
from .random_models import Run, of_one_process, of_ranks, runs

SMALL = ("dp=2", "fsdp=2", "cp=2", "tp=2", "pp=2")
LARGE: tuple[str, ...] = (
    *SMALL,
    "fsdp=3",
    "tp=3",
    "pp=3",
    "dp=2,fsdp=2",
    "fsdp=2,tp=2",
    "pp=2,fsdp=2",
    "pp=2,tp=2",
    "dp=2,tp=2",
)
LARGE += ("cp=2,tp=2", "pp=2,cp=2", "fsdp=2,cp=2")

SIZES: dict[str, Any] = {"dim": 16, "heads": 2, "attn_dim_head": 8, "causal": True, "num_tokens": 11, "max_seq_len": 24}
FOUND = {
    "single numbers under fsdp": Run("a f", SIZES | {"num_residual_streams": 2}, "fsdp=2", False),
    "memory tokens before a cut": Run("(a f)*2", SIZES | {"num_memory_tokens": 2}, "pp=2", True),
    "gradients that lie in memory as on no other rank": Run(
        "f a mamba(state=4)@y a f a a a mamba(state=4)@y f", SIZES, "pp=2", False, schedule="zero-bubble"
    ),
}
"""What random models have found, once."""


def check(run: Run, twice: bool = False) -> str | None:
    """That all ranks train as one process, or refuse it in the same words, which are returned."""
    expected = of_one_process(run)
    answers = run_ranks(of_ranks, Mesh.parse(run.mesh).size, run, twice)
    if isinstance(answers[0][0], str):
        assert len({each[0] for each in answers}) == 1
        return answers[0][0]
    for found in (each for rank in answers for each in rank):
        assert found.losses == pytest.approx(expected.losses, rel=1e-6, abs=1e-6)
        assert found.norms == pytest.approx(expected.norms, rel=1e-6, abs=1e-6)
        assert found.tokens is None or torch.equal(found.tokens, expected.tokens)
    for first, *again in answers:
        assert all(each.losses == first.losses and each.norms == first.norms for each in again)
    first, *again = answers[0]
    assert first.weights.keys() == expected.weights.keys()
    for name, tensor in first.weights.items():
        wanted = expected.weights[name]
        torch.testing.assert_close(tensor, wanted, rtol=1e-6, atol=1e-6, msg=lambda said, n=name: f"{n}: {said}")
        assert all(torch.equal(tensor, each.weights[name]) for each in again), f"{name}: twice on one mesh"
    return None


def check_drawn(run: Run) -> None:
    try:
        event(check(run, twice=run.seed % 4 == 0) or f"equal on {run.mesh}")
    except (UserError, ValueError):  # no model for a loss over tokens; from ranks it would be RankFailed
        assume(False)


@examples(8)
@given(runs(SMALL))
def test_random_models_train_as_on_one_process(run: Run) -> None:
    check_drawn(run)


@pytest.mark.distributed
@examples(200)
@given(runs(LARGE))
def test_more_random_models_train_as_on_one_process(run: Run) -> None:
    check_drawn(run)


@pytest.mark.parametrize("name", FOUND)
def test_what_was_wrong_once(name: str) -> None:
    assert check(FOUND[name], twice=True) is None


def test_zero_bubble_refuses_what_it_would_compute_wrong() -> None:
    tied = Run("f@x f@x | a a | a | a f", SIZES, "pp=2", False, schedule="zero-bubble")
    biased = Run("a a f | f f | f f | f f", SIZES | {"rel_pos_bias": True}, "pp=2", False, schedule="zero-bubble")
    for run in (tied, biased):
        (said,) = run_ranks(of_ranks, 2, run)[0]
        assert isinstance(said, str)
        assert "take 1f1b" in said
