"""Models of which ranks hold shares, and the whole ones that they are held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import blockdsl
import xt_blocks
from blockdsl import BlockGraph
from blockdsl.plan.local import tensor_part
from xt_blocks.distributed.init import local_tensor
from xt_blocks.distributed.tensor import cuts, sum_gradients, tensor_parallel


def whole_model(graph: BlockGraph) -> nn.Module:
    """In float64, no parameter where it starts: gates that are alike, or zeros, would hide a mix-up."""
    torch.manual_seed(1)
    model = xt_blocks.lower(graph).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def share(whole: nn.Module, graph: BlockGraph, group: Any) -> nn.Module:
    """What a rank has of a model."""
    model = xt_blocks.lower(tensor_part(graph, group.size())).double()
    tensor_parallel(model, graph, group)
    of = cuts(model, graph, group.size())
    state = {name: t.detach().clone() for name, t in whole.state_dict().items()}
    model.load_state_dict({n: local_tensor(t, of.get(n), group.size(), group.rank()) for n, t in state.items()})
    return model.train(whole.training)


@dataclass
class Pass:
    """What a pass gives: its output, its loss, and gradients of the inputs and of parameters by name."""

    out: Tensor
    loss: Tensor
    of_inputs: dict[str, Tensor]
    gradients: dict[str, Tensor | None]


def run_pass(model: nn.Module, inputs: dict[str, Any]) -> Pass:
    own = {n: t.clone().requires_grad_() if t.is_floating_point() else t for n, t in inputs.items()}
    x = own.pop("x")
    with xt_blocks.auxiliary_losses() as losses:
        out = model(x, **own)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape).cos()
    loss = (out * weights).sum() + (losses.total() if losses.by_name() else 0)
    loss.backward()
    of_inputs = {n: t.grad for n, t in {"x": x, **own}.items() if t.grad is not None}
    return Pass(out.detach(), loss.detach(), of_inputs, {n: p.grad for n, p in model.named_parameters()})


def compare(
    graph: BlockGraph, whole: nn.Module, inputs: dict[str, Any], group: Any, expected: Pass, tolerance: float = 1e-9
) -> None:
    """Hold a rank's pass against that of the whole model."""
    ranks, rank = group.size(), group.rank()
    model = share(whole, graph, group)
    found, of = run_pass(model, inputs), cuts(model, graph, ranks)
    sum_gradients(model, of, group)
    gradients = {name: p.grad for name, p in model.named_parameters()}
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(found.out, expected.out, **close)
    torch.testing.assert_close(found.loss, expected.loss, **close)
    torch.testing.assert_close(found.of_inputs, expected.of_inputs, **close)
    assert gradients.keys() == expected.gradients.keys()
    for name, grad in expected.gradients.items():
        own = gradients[name]
        if grad is None or (name in of and of[name].once and rank):
            assert own is None, name
            continue
        assert own is not None, name
        wanted = local_tensor(grad, of.get(name), ranks, rank)
        torch.testing.assert_close(own, wanted, **close, msg=lambda said, name=name: f"{name}: {said}")


def compiled(pattern: str, **settings: Any) -> BlockGraph:
    sizes = {"dim": 16, "heads": 4, "attn_dim_head": 8, **({} if "=>" in pattern else {"causal": True})}
    return blockdsl.compile(pattern, **{**sizes, **settings})
