"""The stack's input in every branch: the formula in float64, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

import blockdsl
import xt_blocks

DIM = 6


@torch.no_grad()
@pytest.mark.parametrize("gate", [False, True])
def test_a_branch_reads_the_stream_and_the_input_and_adds_to_the_stream(gate: bool) -> None:
    torch.manual_seed(0)
    settings = {"reinject_input": True, "learned_reinject_input_gate": gate}
    graph = blockdsl.compile("f (f & f/2)", dim=DIM, **settings)
    model = xt_blocks.lower(graph).double().eval()
    assert isinstance(model, xt_blocks.Stack)
    x = torch.randn(2, 4, DIM, dtype=torch.float64)
    expected = torch.empty_like(x)
    first, second, third = model.blocks.values()
    for b, t in torch.cartesian_prod(torch.arange(2), torch.arange(4)).tolist():
        token = x[b, t]
        injected = torch.stack([row @ token for row in model.injection.project.weight])
        if gate:
            injected = injected / (1 + math.exp(-float(model.injection.gate.weight[0] @ token)))
        stream = token + first.layer(first.norm(token + injected)[None, None])[0, 0]
        read = (stream + injected)[None, None]
        expected[b, t] = (stream + second.layer(second.norm(read)) + third.layer(third.norm(read)) / 2)[0, 0]
    torch.testing.assert_close(model(x), model.norm(expected))
    assert graph.parameters() == sum(p.numel() for p in model.parameters())
    seen = xt_blocks.Intermediates()
    model(x, intermediates=seen)
    torch.testing.assert_close(seen.streams["f0"], x + model.injection(x), msg="what a block read has it")
    assert "injected into each branch" in graph.to_text()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learned_reinject_input_gate": True}, "learned_reinject_input_gate is set, but it needs reinject_input"),
        ({"reinject_input": True, "num_residual_streams": 2}, "branches read num_residual_streams=2"),
        ({"reinject_input": True, "shared_norm": True}, "reads what another block has normed"),
    ],
)
def test_what_does_not_go_with_it_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(blockdsl.UserError, match=words):
        blockdsl.compile("a & f", dim=DIM, heads=1, **settings)
