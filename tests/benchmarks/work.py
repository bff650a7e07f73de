"""What is timed: a step of training, a forward pass, cached generation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from blockdsl import BlockGraph
from blockdsl.graph.costs import node_costs, sizes
from blockdsl.registry.state import item_bytes

from .contestants.base import Contestant
from .limits import Least
from .setting import Setting


@dataclass(frozen=True)
class Work:
    """
    Attributes:
        ready: a contestant and a setting → the work, to be called as often as it is to be done.
        least: what it cannot do without, of one of our graphs.
        tokens: how many it handles.
    """

    title: str
    ready: Callable[[Contestant, Setting], Callable[[], object]]
    least: Callable[[BlockGraph, Setting], Least]
    tokens: Callable[[Setting], int]


def training(contestant: Contestant, setting: Setting) -> Callable[[], object]:
    contestant.net.train()
    tokens = drawn(setting, setting.seq + 1)
    autocast = torch.autocast(
        torch.device(setting.device).type, torch.bfloat16, enabled=setting.precision == "autocast"
    )

    def step() -> None:
        with autocast:
            loss = contestant.loss(tokens)
        loss.backward()
        contestant.net.zero_grad()

    return step


def forward(contestant: Contestant, setting: Setting) -> Callable[[], object]:
    contestant.net.eval()
    tokens = drawn(setting, setting.seq)

    @torch.no_grad()
    def run() -> None:
        contestant.logits(tokens)

    return run


def generating(contestant: Contestant, setting: Setting) -> Callable[[], object]:
    contestant.net.eval()
    prompt = drawn(setting, setting.seq)
    return lambda: contestant.generate(prompt, setting.new)


def drawn(setting: Setting, length: int) -> Tensor:
    """(batch, length) random tokens, the same for all."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, setting.vocabulary, (setting.batch, length), generator=draw).to(setting.device)


def useful_flops(graph: BlockGraph, seq: int, batch: int) -> float:
    """FLOPs of a causal pass in which each token meets only those that it attends to.

    A graph counts all pairs of tokens, as kernels may compute them: the part that grows with the square of the length.
    """
    whole = graph.flops(seq, batch)
    pairs = graph.flops(2 * seq, batch) / 2 - whole
    return whole - pairs * (1 - attended(seq, window(graph)) / seq**2)


def attended(seq: int, window: float) -> float:
    """Pairs of a token and one that it attends to: itself and up to `window` before it."""
    return sum(min(place, window) + 1 for place in range(seq))


def window(graph: BlockGraph) -> float:
    """How far back a token attends at most."""
    options = [graph.nx.nodes[node]["options"] for node in graph.nodes("block")]
    reach = [own.get("max_attend_past") for own in options if "heads" in own]
    return max((math.inf if back is None else back for back in reach), default=math.inf)


def weight_bytes(graph: BlockGraph, setting: Setting) -> float:
    """Bytes of the weights that every token needs: those of blocks and head."""
    costs = node_costs(graph, sizes(seq_len=1, batch=1))
    needed = [cost for node, cost in costs if graph.node_type(node) in ("block", "output")]
    return sum(cost.parameters for cost in needed) * item_bytes(setting.weights)


def training_least(graph: BlockGraph, setting: Setting) -> Least:
    """Backward takes twice forward: gradients of what a product reads, and of its weights."""
    weights = weight_bytes(graph, setting)
    return Least(3 * useful_flops(graph, setting.seq, setting.batch), 3 * weights, weights)


def forward_least(graph: BlockGraph, setting: Setting) -> Least:
    weights = weight_bytes(graph, setting)
    return Least(useful_flops(graph, setting.seq, setting.batch), weights, weights)


def generating_least(graph: BlockGraph, setting: Setting) -> Least:
    """Every step reads the weights, and keys and values of the tokens before."""
    weights = weight_bytes(graph, setting)
    token = graph.kv_cache_bytes(1, setting.batch, str(setting.weights))
    read = setting.new * weights + sum(range(setting.seq, setting.length)) * token
    return Least(useful_flops(graph, setting.length, setting.batch), read, weights)


TRAINING = Work("train step", training, training_least, lambda setting: setting.batch * setting.seq)
FORWARD = Work("forward", forward, forward_least, lambda setting: setting.batch * setting.seq)
GENERATING = Work("cached generation", generating, generating_least, lambda setting: setting.batch * setting.new)
