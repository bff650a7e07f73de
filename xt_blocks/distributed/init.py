"""Initial weights that are the same bits on every mesh.

Each block is drawn from a seed of its own, of the run's seed and the block's name, and so is what is around the
blocks. A rank makes the blocks that it needs one after another, keeps its share of each and lets the rest go; so no
rank ever holds the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..models.lower import model_around
from ..runtime.modules import block_module
from ..runtime.seeds import seed_for
from ..runtime.stack import Stack

if TYPE_CHECKING:
    from blockdsl import BlockGraph

    from ..models.sequence import SequenceModel
    from ..models.vision import ViTransformerWrapper

Place = Callable[[str, nn.Module], nn.Module]
"""The node of a block and the block as it is drawn → what a rank keeps of it."""


def initialised(
    graph: BlockGraph,
    seed: int,
    place: Place = lambda node, block: block,
    nodes: Collection[str] | None = None,
    local: BlockGraph | None = None,
) -> Stack | SequenceModel | ViTransformerWrapper:
    """The model of a graph, drawn from a seed unit by unit.

    Args:
        graph: of one stream.
        seed: of the run.
        place: what is kept of each block.
        nodes: the blocks that this rank has; None: all. Without some, a stack runs the others' steps.
        local: the graph that says what a rank keeps, if that is not all of each block.
    """
    owners = [node for node in graph.tied() if graph.node_type(node) == "block"]
    kept = owners if nodes is None else [node for node in owners if node in nodes]
    graph = graph.lint()
    blocks = {node: place(node, drawn_block(graph, node, seed)) for node in kept}
    local = graph if local is None else local
    with drawn_from(seed, "model"):
        return model_around(Stack(local.stack_alone(), blocks), local)


def drawn_block(graph: BlockGraph, node: str, seed: int) -> nn.Module:
    """The block of a node as it starts, by itself."""
    with drawn_from(seed, node):
        return block_module(graph, node)


@contextmanager
def drawn_from(seed: int, name: str) -> Iterator[None]:
    """Inside, torch's random numbers on the CPU are those of this seed and name; after it, those of before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("weights", seed, name))
        yield
