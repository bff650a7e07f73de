"""One step of a language model whose tokens are shared by ranks that are threads, against one process."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import xt_blocks
from blockdsl import BlockGraph
from blockdsl.plan.stages import stages
from xt_blocks import AutoregressiveWrapper
from xt_blocks.distributed import context
from xt_blocks.distributed.stage import StageLoss, StageModel, StageStack
from xt_blocks.kernels.batch_rows import BatchRows, rows_of_batch

from .threads import of_threads

SEED = 7


@dataclass
class Step:
    """What a step of one process gives."""

    loss: Tensor
    gradients: dict[str, Tensor | None]


def whole_model(graph: BlockGraph) -> Any:
    """In float64, no parameter where it starts."""
    torch.manual_seed(1)
    model = xt_blocks.lower(graph).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.train()


def of_one_process(model: Any, tokens: Tensor, mask: Tensor | None) -> Step:
    with rows_of_batch(BatchRows(range(len(tokens)), SEED)):
        loss = AutoregressiveWrapper(model)(tokens, mask)
    loss.backward()
    return Step(loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()})


def of_rank(graph: BlockGraph, state: dict[str, Tensor], tokens: Tensor, mask: Tensor | None, group: Any) -> Step:
    """What the rank has of the loss, and of the gradients."""
    (all_of_it,) = stages(graph, 1)
    net = StageModel(StageStack(graph.stack_alone(), None, all_of_it.nodes, all_of_it.beside), graph.model_options())
    net.double().load_state_dict(copy.deepcopy(state))
    stage = StageLoss(net, contextlib.nullcontext, 1.0, group.total, group).train()
    stage.seed = SEED
    size = (tokens.shape[1] - 1) // group.size()
    start = group.rank() * size
    own = slice(start, start + size + 1)
    predicted = tokens[:, 1:] >= 0 if mask is None else mask[:, 1:] & mask[:, :-1]
    real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    share = real[:, own][:, :-1].sum().double() / real[:, :-1].sum()
    objective = stage(
        tokens=tokens[:, own],
        mask=None if mask is None else mask[:, own],
        mask_before=None if mask is None else mask[:, :start],
        weight=(1 / predicted.sum().double())[None],
        share=share[None],
        places=torch.arange(len(tokens)),
    )
    objective.backward()
    return Step(objective.detach(), {name: parameter.grad for name, parameter in net.named_parameters()})


def compare(
    monkeypatch: pytest.MonkeyPatch, graph: BlockGraph, ranks: int, tokens: Tensor, mask: Tensor | None = None
) -> None:
    """Hold the sum over ranks against one process.

    Factors of xPos are float32, and centred on the keys that there are, so that they are rounded otherwise.
    """
    model = whole_model(graph)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    expected = of_one_process(model, tokens, mask)

    def run(group: Any) -> Step:
        return of_rank(graph, state, tokens, mask, group)

    with monkeypatch.context() as patch:
        patch.setattr(context, "all_gather", lambda out, x, group: group.gather(out, x))
        patch.setattr(context, "reduce_scatter", lambda out, x, group: group.scatter(out, x))
        found = of_threads(patch, ranks, run)
    xpos = any(graph.nx.nodes[node].get("xpos_scale_base") for node in graph.nodes("position"))
    close = {"rtol": 1e-5, "atol": 1e-5} if xpos else {"rtol": 1e-8, "atol": 1e-9}
    torch.testing.assert_close(sum(step.loss for step in found), expected.loss, **close)
    for name, grad in expected.gradients.items():
        parts = [step.gradients[name] for step in found]
        if grad is None:
            assert all(part is None for part in parts), name
            continue
        total = sum(part for part in parts if part is not None)
        torch.testing.assert_close(total, grad, **close, msg=lambda said, name=name: f"{name}: {said}")
