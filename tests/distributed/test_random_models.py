"""Random patterns, options and meshes train as one process does, or are refused in words."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, event, given

from blockdsl import UserError

from ..properties.models import examples
from .processes import run as run_ranks
from .random_models import Run, of_one_process, of_ranks, runs

SMALL = ("dp=2", "fsdp=2", "tp=2", "pp=2")
LARGE = (*SMALL, "fsdp=3", "tp=3", "pp=3", "dp=2,fsdp=2", "fsdp=2,tp=2", "pp=2,fsdp=2", "pp=2,tp=2", "dp=2,tp=2")


def check(run: Run, twice: bool = False) -> None:
    try:
        expected = of_one_process(run)
    except (UserError, ValueError):  # of one process too
        assume(False)
    from blockdsl.plan.mesh import Mesh

    answers = run_ranks(of_ranks, Mesh.parse(run.mesh).size, run, twice)
    if isinstance(answers[0][0], str):
        assert len({each[0] for each in answers}) == 1, "all ranks refuse it in the same words"
        event(f"refused: {answers[0][0]}")
        return
    event(f"equal on {run.mesh}")
    for rank in answers:
        for found in rank:
            assert found.losses == pytest.approx(expected.losses, rel=1e-6, abs=1e-6)
            assert found.norms == pytest.approx(expected.norms, rel=1e-6, abs=1e-6)
            assert found.tokens is None or torch.equal(found.tokens, expected.tokens)
        assert all(found.losses == rank[0].losses and found.norms == rank[0].norms for found in rank)
    for found in answers[0]:
        assert found.weights.keys() == expected.weights.keys()
        for name, tensor in found.weights.items():
            wanted = expected.weights[name]
            torch.testing.assert_close(tensor, wanted, rtol=1e-6, atol=1e-6, msg=lambda said: f"{name}: {said}")
            assert torch.equal(tensor, answers[0][0].weights[name]), f"{name}: twice on the same mesh"


@examples(12)
@given(runs(SMALL))
def test_random_models_train_as_on_one_process(run: Run) -> None:
    check(run, twice=run.seed % 4 == 0)


@pytest.mark.distributed
@examples(200)
@given(runs(LARGE))
def test_more_random_models_train_as_on_one_process(run: Run) -> None:
    check(run, twice=run.seed % 4 == 0)
