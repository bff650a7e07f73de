"""The stacks of a model: the names of their nodes, their graphs, and their modules by node."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from blockdsl import BlockGraph
from blockdsl.errors import UserError

from ..runtime.record import named_stacks
from ..runtime.stack import Stack


@dataclass(frozen=True)
class OneStack:
    """A stack of a model.

    Attributes:
        prefix: of its nodes' names, as "encoder."; empty where it is the only one.
        graph: of the model around it, which has the same nodes, or its own.
    """

    prefix: str
    stack: Stack
    graph: BlockGraph

    @property
    def start(self) -> str:
        return self.prefix + self.graph.start

    @property
    def end(self) -> str:
        return self.prefix + self.graph.end

    def by_node(self) -> dict[str, tuple[nn.Module, int]]:
        """Each block and read in the order of the plan → its module, and which of the module's calls in a pass is its:
        not the first where it is tied to an earlier one."""
        found: dict[str, tuple[nn.Module, int]] = {}
        calls: Counter[nn.Module] = Counter()
        for step in self.stack.plan:
            if step.block is None and step.join is None:
                continue
            module = self.stack.joins[step.join or ""] if step.block is None else self.stack.blocks[step.block]
            found[self.prefix + step.node] = module, calls[module]
            calls[module] += 1
        return found

    def calls(self) -> dict[nn.Module, list[str]]:
        """Each of these modules → the nodes that it runs for, in order."""
        found: defaultdict[nn.Module, list[str]] = defaultdict(list)
        for node, (module, _) in self.by_node().items():
            found[module].append(node)
        return found


def stacks_of(model: nn.Module) -> list[OneStack]:
    """The stacks of a model, in the order of its modules.

    Raises:
        UserError: there is none.
    """
    found = [OneStack(prefix, stack, _graph(model, stack)) for prefix, stack in named_stacks(model).items()]
    if not found:
        raise UserError(f"{type(model).__name__} has no stack of blocks: give a model that lower or a wrapper made")
    return found


def graphs_of(model: nn.Module) -> dict[str, BlockGraph]:
    """The graph of each stack by its name; one alone is called ""."""
    return {one.prefix.removesuffix("."): one.graph for one in stacks_of(model)}


def _graph(model: nn.Module, stack: Stack) -> BlockGraph:
    around: Iterator[nn.Module] = (m for m in model.modules() if getattr(m, "attn_layers", None) is stack)
    graph: BlockGraph = getattr(next(around, stack), "graph", stack.graph)
    return graph
