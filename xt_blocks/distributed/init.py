"""Initial weights that are the same bits on every mesh.

Each block is drawn from a seed of its own, of the run's seed and the block's name, and so is what is around the
blocks. A rank makes the blocks that it needs one after another, keeps its share of each and lets the rest go; so no
rank ever holds the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..models.lower import model_around
from ..runtime.modules import block_module
from ..runtime.seeds import seed_for
from ..runtime.stack import Stack

if TYPE_CHECKING:
    from blockdsl import BlockGraph, Cut

    from ..models.sequence import SequenceModel
    from ..models.vision import ViTransformerWrapper

Place = Callable[[str, nn.Module], nn.Module]
"""The node of a block and the block as it is drawn → what a rank keeps of it."""


def initialised(
    graph: BlockGraph,
    seed: int,
    place: Place = lambda node, block: block,
    nodes: Collection[str] | None = None,
) -> Stack | SequenceModel | ViTransformerWrapper:
    """The model of a graph of one stream, drawn from a seed unit by unit.

    Args:
        graph: the stream's.
        seed: of the run.
        place: what is kept of each block.
        nodes: the blocks that this rank has; None: all. Without some, a stack runs the others' steps.
    """
    graph = graph.lint()
    owners = [node for node in graph.tied() if graph.node_type(node) == "block"]
    kept = owners if nodes is None else [node for node in owners if node in nodes]
    blocks = {node: place(node, drawn_block(graph, node, seed)) for node in kept}
    with drawn_from(seed, "model"):
        return model_around(Stack(graph.stack_alone(), blocks), graph)


def encoder_of(graph: BlockGraph, seed: int, place: Place = lambda node, block: block) -> Any:
    """The encoder of a graph of two streams, as `initialised` draws one; None: it has one stream."""
    return None if graph.encoder is None else initialised(graph.encoder, seed_for("encoder", seed), place)


def fill(target: nn.Module, source: nn.Module, cuts: Mapping[str, Cut], ranks: int, rank: int) -> None:
    """Fill the parameters and buffers of a rank's share of a module with its parts of the whole one's.

    Args:
        cuts: parameter → which part a rank of tensor parallelism has; those that are not here it has wholly.
    """
    with torch.no_grad():
        for name, parameter in target.named_parameters():
            if (whole := source.get_parameter(name)) is not parameter:  # a module that both have
                parameter.copy_(local_tensor(whole, cuts.get(name), ranks, rank))
        kept = dict(source.named_buffers())
        for name, buffer in target.named_buffers():
            if name in kept and kept[name].shape == buffer.shape:
                buffer.copy_(kept[name])


def local_tensor(whole: Tensor, cut: Cut | None, ranks: int, rank: int) -> Tensor:
    """What a rank holds of a whole parameter; None: all of it."""
    if cut is None or not whole.ndim:
        return whole
    held = cut.held(whole.shape[cut.axis], ranks, rank)
    if not held:
        return torch.zeros_like(whole)
    parts = [whole.narrow(cut.axis, own.whole.start, own.whole.stop - own.whole.start) for own in held]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=cut.axis)


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
