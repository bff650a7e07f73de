"""Looped depth: a model whose tied units are repeated more or fewer times, with the same parameters.

The graph is written anew (`blockdsl.graph.loops`), and the modules are those of the model.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from blockdsl.errors import UserError, did_you_mean, listing
from blockdsl.graph.loops import loop_labels

from .stack import Stack

M = TypeVar("M", bound=nn.Module)


def with_loops(model: M, **counts: int) -> M:
    """The model with its tied units repeated so often: `with_loops(model, core=16)` of `(a f)@core*8`.

    Every module and parameter is the model's own, so that training either trains both, hooks and adapters stay, and
    `to` moves both. Only its stacks, and what is around them, are copied. It costs as much as making the plan of a
    stack; keep the result where one number is used often.

    Universal Transformer (arXiv:1807.03819); Geiping et al., arXiv:2502.05171, who draw a number for each step of
    training and choose one for each text.

    Args:
        model: a stack, or a model with stacks inside, as an AutoregressiveWrapper.
        counts: how often, at least once, by the unit's label.

    Raises:
        UserError: no unit has this label, or its repeats differ in more than their place, or have parameters of their
            own, as by lora_rank.
        TypeError: the model is compiled: compile what this gives instead.
    """
    stacks = [module for module in model.modules() if isinstance(module, Stack)]
    labels = list(dict.fromkeys(label for stack in stacks for label in loop_labels(stack.graph)))
    for label in counts:
        if label not in labels:
            hint = did_you_mean(label, labels) or listing("ties", labels or ["none"])
            raise UserError(f"no blocks of the model are tied as '{label}', as in (a f)@{label}*8; {hint}")
    if any(hasattr(module, "_orig_mod") for module in model.modules()):
        raise TypeError("the model is compiled for the loops it has: give with_loops the model, and compile the result")
    around = {module for module in model.modules() if any(isinstance(inner, Stack) for inner in module.modules())}
    kept: dict[int, object] = {id(module): module for module in model.modules() if module not in around}
    kept |= {id(tensor): tensor for module in around for tensor in _own_tensors(module)}
    new = copy.deepcopy(model, kept)
    for module in new.modules():
        if isinstance(module, Stack):
            _follow(module, counts)
        elif "graph" in vars(module):
            module.graph = module.graph.with_loops(**_of(module.graph, counts))  # type: ignore[union-attr, operator]
    return new


def _own_tensors(module: nn.Module) -> list[object]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _of(graph: object, counts: dict[str, int]) -> dict[str, int]:
    """The counts of labels that are in a graph, or in that of its encoder."""
    inner = getattr(graph, "encoder", None)
    known = {*loop_labels(graph), *([] if inner is None else loop_labels(inner))}  # type: ignore[arg-type]
    return {label: count for label, count in counts.items() if label in known}


def _follow(stack: Stack, counts: dict[str, int]) -> None:
    graph = stack.graph.with_loops(**_of(stack.graph, counts))
    for owner in (node for node in stack.graph.tied() if stack.graph.node_type(node) == "block"):
        if owner in graph.nx and len(graph.uses(owner)) != len(stack.graph.uses(owner)):
            raise UserError(f"{owner}: each repeat has parameters of its own, and another number of them has not")
    modules: dict[str, nn.Module] = {**stack.blocks, **stack.joins}
    by_tie = {stack.graph.nx.nodes[owner]["tie"]: module for owner, module in modules.items()}
    own = {o: modules[o] if o in modules else by_tie[graph.nx.nodes[o]["tie"]] for o in graph.tied()}
    stack.blocks = nn.ModuleDict({o: m for o, m in own.items() if graph.node_type(o) == "block"})
    stack.joins = nn.ModuleDict({o: m for o, m in own.items() if graph.node_type(o) == "read"})
    stack.follow(graph)
