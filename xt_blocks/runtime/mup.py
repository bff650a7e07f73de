"""muP (Yang et al., arXiv:2203.03466) of a model: its initial weights and the groups of its optimiser.

A learning rate that was found for a narrow model, the base, is then the right one for a wide model of its pattern.
What a parameter's role is and what follows from it is `blockdsl.graph.mup`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from blockdsl import BlockGraph
from blockdsl.errors import UserError
from blockdsl.graph.mup import Scaling, scaling_of

from .pretrained import Pretrained


class _Compared(NamedTuple):
    """A parameter, that of the base under the same name, and how they differ."""

    name: str
    parameter: nn.Parameter
    base: Tensor
    scaling: Scaling


def mup(model: nn.Module, base: BlockGraph, *, lr: float, weight_decay: float = 0.0) -> list[dict[str, Any]]:
    """Rescale a model's initial weights, and give its parameters as groups of Adam or AdamW.

        graph, base = (blockdsl.compile(text, dim=dim, heads=8, attn_dim_head=dim // 8) for dim in (1024, 64))
        model = xt_blocks.lower(graph.with_mup(base))
        optimizer = torch.optim.AdamW(xt_blocks.mup(model, base, lr=1e-2))

    A parameter whose mean is near zero gets the standard deviation that the base's has when it is lowered, times that
    of its role; others, such as gains and decays, stay as they are.

    Args:
        model: not yet trained, of a graph that `with_mup(base)` gave.
        base: the graph of the width for which `lr` was found.
        lr, weight_decay: of the base; the decay is that of parameters with two axes or more. Where a role makes the
            learning rate smaller, the decay is larger, so that AdamW takes the same share of a weight at each step.

    Raises:
        TypeError: the model is not made of block graphs.
        UserError: the base is another pattern, or the model's graph has not the scales of `with_mup(base)`.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for one in _compared(model, base):
        _rescale(one)
        factor = one.scaling.adam
        decay = weight_decay / factor if one.parameter.ndim > 1 else 0.0
        groups.setdefault((lr * factor, decay), []).append(one.parameter)
    return [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]


def scalings(model: nn.Module, base: BlockGraph) -> dict[str, Scaling]:
    """The scaling of each parameter by its name in the model; errors are those of `mup`."""
    return {one.name: one.scaling for one in _compared(model, base)}


@torch.no_grad()
def _rescale(one: _Compared) -> None:
    parameter, base = one.parameter, one.base
    if parameter.shape == base.shape:
        return
    size, of_base = (float(each.double().square().mean().sqrt()) for each in (parameter, base))
    if abs(float(parameter.double().mean())) < size / 2:
        parameter.mul_(of_base * one.scaling.init / size)


def _compared(model: nn.Module, base: BlockGraph) -> Iterator[_Compared]:
    if not isinstance(model, Pretrained):
        raise TypeError(f"mup takes a model of block graphs, as xt_blocks.lower gives, not {type(model).__name__}")
    bases = {"": base} if "" in model.graphs else base.streams()
    if bases.keys() != model.graphs.keys():
        raise UserError("the base is another pattern: one of the two has an encoder")
    if any(graph != graph.with_mup(bases[name]) for name, graph in model.graphs.items()):
        raise UserError("the model's graph has not the scales of muP: lower graph.with_mup(base)")
    with torch.random.fork_rng(devices=[]):
        narrow = dict(type(model).from_graphs(bases, **model.arguments()).named_parameters())
    for name, parameter in model.named_parameters():
        owner, _, last = name.rpartition(".")
        layer = last == "weight" and not isinstance(model.get_submodule(owner), nn.Embedding)
        yield _Compared(
            name, parameter, narrow[name], scaling_of(tuple(parameter.shape), tuple(narrow[name].shape), layer)
        )
