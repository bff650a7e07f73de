"""The stack is one graph for torch.compile, and exports with a dynamic length."""

from __future__ import annotations

import pytest
import torch

from .variants import SIZES, inputs, stack

NAMES = ["rotary", "shift 2", "parallel chains", "ties that differ in use", "residual attention, parallel", "cross"]


@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_a_graph_break(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model)
    mask = torch.arange(7) < torch.tensor([[7], [3]])
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x, mask=mask, **extra), model(x, mask=mask, **extra))
    assert torch.equal(compiled(x, **extra), model(x, **extra))


@pytest.mark.parametrize("name", NAMES)
def test_exports_with_a_dynamic_length(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model)
    seq = torch.export.Dim("seq", min=2, max=64)
    kwargs = {"mask": torch.ones(2, 7, dtype=torch.bool), **extra}
    shapes = {"x": {1: seq}, "mask": {1: seq}, **dict.fromkeys(extra)}
    exported = torch.export.export(model, (x,), kwargs, dynamic_shapes=shapes, strict=False).module()
    longer = torch.randn(2, 11, SIZES["dim"])
    mask = torch.arange(11) < torch.tensor([[11], [4]])
    torch.testing.assert_close(exported(longer, mask=mask, **extra), model(longer, mask=mask, **extra))
