"""The lowered graph: its modules, and the plan by which a forward pass runs them.

The plan is read off the graph once. Each step names the nodes it reads, so the forward pass is a walk over the
graph and state is keyed by node.

What a block's module is handed, by the names its kind declares in `inputs`:

    mask      (batch, seq) bool, True = a real token; None: all are
    attend    attention.Masks: every mask of this forward pass
    context   (batch, context, dim); None when the cache has what the block needs of it
    rotary    positions.Rotation of the tokens in this call, or None
    scores    (batch, heads, seq, keys) of an earlier block, or None; with it comes keep_scores: bool. When that is
              True the module returns (update, its own scores)
    cache     cache.Slot, this node's state while decoding, or None
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from blockdsl.errors import GraphError
from blockdsl.kinds import BLOCK_OPTIONS, kinds, norm_of

from .attention.masks import Masks, check_mask
from .block import Block, Residual, Use
from .cache import Cache
from .init import init_xavier
from .norms import norm
from .positions.rotary import Rotation, rotation
from .residual import ResidualConnection

if TYPE_CHECKING:
    from blockdsl import BlockGraph


@dataclass(frozen=True)
class Step:
    """One node of the plan.

    Attributes:
        node: its name in the graph.
        reads: the nodes whose streams are summed.
        block: the key of its module, the owner's where blocks are tied; None: a sum.
        base: of a sum, where its branches started.
        fork: of a node inside a branch, where the branch started; what it adds is counted from there.
        inputs: what its kind declares.
        counted: of a sum, the branches whose gain is known from their blocks; that of another is a difference.
        rotary, scores_from: the nodes it reads these from.
        keep_scores: a later block reads its scores.
        done: nodes whose values no later step reads.
    """

    node: str
    reads: tuple[str, ...]
    block: str | None = None
    base: str | None = None
    fork: str | None = None
    use: Use = field(default_factory=Use)
    inputs: tuple[str, ...] = ()
    counted: tuple[str, ...] = ()
    rotary: str | None = None
    scores_from: str | None = None
    keep_scores: bool = False
    done: tuple[str, ...] = ()


class Stack(nn.Module):
    """A block graph as a torch module.

    Args:
        graph: linted; what it says of tokens is left to the wrapper around the stack.

    Attributes:
        graph: the graph it was lowered from.
    """

    def __init__(self, graph: BlockGraph) -> None:
        super().__init__()
        self.graph = graph.lint()
        self.dim = graph.dim
        if taken := [node for node in graph.tied() if hasattr(nn.ModuleDict, node)]:
            raise GraphError(f"{taken[0]}: torch's modules use this name themselves; give the node another")
        self.blocks = nn.ModuleDict({owner: _block(graph, owner) for owner in graph.tied()})
        self.norm = norm(graph.nx.nodes[graph.end]["norm"], graph.dim)
        self.plan = _plan(graph)
        self.rotary_dims = {
            node: graph.nx.nodes[node]["dim"]
            for node in graph.nodes("position")
            if graph.nx.nodes[node]["scheme"] == "rotary"
        }
        self.start = graph.start
        self.reads_context = bool(graph.nodes("context"))

    @property
    def pattern(self) -> str:
        """The canonical text of the pattern it was made from."""
        return self.graph.pattern

    def new_cache(self, batch: int, max_len: int) -> Cache:
        """Room to decode `batch` sequences of up to `max_len` tokens.

        Raises:
            ValueError: the stack cannot be decoded one token at a time; the message says why.
        """
        if reason := self.graph.why_not_cached():
            raise ValueError(f"no cache can be kept: {reason}")
        return Cache(batch, max_len)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """
        Args:
            x: (batch, seq, dim)
            context: (batch, context, dim), for cross-attention.
            mask: (batch, seq) bool, True = a real token.
            context_mask: (batch, context) bool, True = a real token.
            cache: x goes on behind the tokens it holds.

        Returns:
            (batch, seq, dim)

        Raises:
            ValueError: a shape or type is wrong, or a context is missing or not asked for.
        """
        self._check(x, context, mask, context_mask, cache)
        seq, past, seen = x.shape[1], 0, mask
        if cache is not None:
            past, seen = cache.length, cache.seen(mask, seq, x.device)
            context_mask = cache.context_mask if past else context_mask
        run = _Run(
            masks=Masks(seq, past, seen, context_mask, x.device),
            mask=mask,
            context=context,
            rotations=self._rotations(past, seq, x.device),
            cache=cache,
        )
        out = self._walk(x, run)
        if cache is not None:
            cache.length, cache.mask, cache.context_mask = past + seq, seen, context_mask
        return self.norm(out)

    def _walk(self, x: Tensor, run: _Run) -> Tensor:
        values: dict[str, Tensor] = {self.start: x}  # the stream behind each node
        added: dict[str, Tensor] = {}  # inside a branch: the stream less what it was at the fork
        scores: dict[str, Tensor] = {}
        for step in self.plan:
            if step.block is None:
                self._sum(step, values, added)
            else:
                self._run_block(step, run, values, added, scores)
            for node in step.done:
                values.pop(node, None)
                added.pop(node, None)
                scores.pop(node, None)
        (last,) = values.values()
        return last

    def _run_block(
        self, step: Step, run: _Run, values: dict[str, Tensor], added: dict[str, Tensor], scores: dict[str, Tensor]
    ) -> None:
        x = _total(values, step.reads)
        slot = None if run.cache is None else run.cache.slot(step.node)
        out: Residual = self.blocks[step.block](x, step.use, run.inputs(step, scores), run.mask, slot)  # type: ignore[index]
        values[step.node] = out.stream
        if out.scores is not None:
            scores[step.node] = out.scores
        if step.fork is not None:
            gained = out.stream - x if out.gain is None else out.gain
            before = added.get(step.reads[0]) if step.reads[0] != step.fork else None
            added[step.node] = gained if before is None else before + gained

    def _sum(self, step: Step, values: dict[str, Tensor], added: dict[str, Tensor]) -> None:
        if step.base is None:
            values[step.node] = _total(values, step.reads)
            return
        base = values[step.base]
        gains = [added[end] if end in step.counted else values[end] - base for end in step.reads]
        gained = sum(gains[1:], gains[0])
        values[step.node] = base + gained
        if step.fork is not None:
            before = added.get(step.base) if step.base != step.fork else None
            added[step.node] = gained if before is None else before + gained

    def _rotations(self, past: int, seq: int, device: torch.device) -> dict[str, Rotation]:
        if not self.rotary_dims:
            return {}
        positions = torch.arange(past, past + seq, device=device)
        return {node: rotation(positions, dim) for node, dim in self.rotary_dims.items()}

    def _check(
        self,
        x: Tensor,
        context: Tensor | None,
        mask: Tensor | None,
        context_mask: Tensor | None,
        cache: Cache | None,
    ) -> None:
        if x.ndim != 3 or x.shape[-1] != self.dim:
            raise ValueError(f"x must be (batch, seq, {self.dim}), not {tuple(x.shape)}")
        if context is None and self.reads_context and (cache is None or cache.length == 0):
            raise ValueError("the stack has cross-attention: give context=")
        if cache is not None and cache.length and (context is not None or context_mask is not None):
            raise ValueError("the cache holds the context of its first step; later steps take none")
        if context is not None and not self.reads_context:
            hint = "write 'c' in the pattern or cross_attend=True"
            raise ValueError(f"a context is given, but no block reads one: {hint}")
        if context is not None and (context.ndim != 3 or context.shape[::2] != x.shape[::2]):
            raise ValueError(f"context must be ({x.shape[0]}, seq, {self.dim}), not {tuple(context.shape)}")
        if context_mask is not None and context is None:
            raise ValueError("a context_mask is given, but no context")
        check_mask("mask", mask, x)
        check_mask("context_mask", context_mask, context)
        if cache is not None:
            cache.check_room(x.shape[0], x.shape[1])


@dataclass(frozen=True)
class _Run:
    """What one forward pass hands to its blocks."""

    masks: Masks
    mask: Tensor | None
    context: Tensor | None
    rotations: dict[str, Rotation]
    cache: Cache | None

    def inputs(self, step: Step, scores: dict[str, Tensor]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name in step.inputs:
            if name == "mask":
                out["mask"] = self.mask
            elif name == "attend":
                out["attend"] = self.masks
            elif name == "context":
                out["context"] = self.context
            elif name == "rotary":
                out["rotary"] = None if step.rotary is None else self.rotations[step.rotary]
            elif name == "scores":
                out["scores"] = None if step.scores_from is None else scores[step.scores_from]
                out["keep_scores"] = step.keep_scores
            elif name == "cache":
                out["cache"] = None if self.cache is None else self.cache.slot(step.node)
        return out


def _total(values: dict[str, Tensor], nodes: tuple[str, ...]) -> Tensor:
    return sum((values[node] for node in nodes[1:]), values[nodes[0]])


# Lowering ----------------------------------------------------------------------------------------------------------


def _block(graph: BlockGraph, node: str) -> Block:
    """The module of a block's node."""
    attrs = graph.nx.nodes[node]
    kind, options = kinds()[attrs["block"]], dict(attrs["options"])
    around = {option.name: options.pop(option.name) for option in BLOCK_OPTIONS}
    make = pkgutil.resolve_name(kind.module) if isinstance(kind.module, str) else kind.module
    layer = make(dim=graph.dim, **options)
    if around["init_gain"] is not None:
        init_xavier(layer, around["init_gain"])
    return Block(
        layer,
        graph.dim,
        norm_of(around),
        around["pre_norm"],
        around["layer_dropout"],
        around["sandwich_norm"],
        ResidualConnection(
            graph.dim, around["scale_residual"], around["scale_residual_constant"], around["gate_residual"]
        ),
    )


def _plan(graph: BlockGraph) -> list[Step]:
    """The graph's blocks and sums in an order that has each behind what it reads."""
    owner = {node: first for first, nodes in graph.tied().items() for node in nodes}
    forks = _forks(graph)
    kept = {source for node in graph.nodes("block") for source in graph.sources(node, "scores")}
    steps = [
        _step(graph, node, owner, forks, node in kept)
        for node in graph.order()
        if graph.nx.nodes[node]["kind"] in ("block", "sum")
    ]
    ends = tuple(graph.sources(graph.end, "stream"))
    if len(ends) > 1 or not steps:
        steps.append(Step(graph.end, ends))
    return _with_lifetimes(steps, graph.start)


def _step(graph: BlockGraph, node: str, owner: dict[str, str], forks: dict[str, str], keep: bool) -> Step:
    attrs = graph.nx.nodes[node]
    reads = tuple(graph.sources(node, "stream"))
    if attrs["kind"] == "sum":
        base = graph.sources(node, "base")
        counted = tuple(end for end in reads if base and forks.get(end) == base[0])
        return Step(node, reads, base=base[0] if base else None, fork=forks.get(node), counted=counted)
    position, scores = graph.sources(node, "position"), graph.sources(node, "scores")
    return Step(
        node,
        reads,
        block=owner[node],
        fork=forks.get(node),
        use=Use(attrs["shift"], float(attrs["scale"]), graph.causal),
        inputs=kinds()[attrs["block"]].inputs,
        rotary=position[0] if position else None,
        scores_from=scores[0] if scores else None,
        keep_scores=keep,
    )


def _forks(graph: BlockGraph) -> dict[str, str]:
    """Nodes inside a branch → where the innermost branch around them starts; simple chains only.

    What the end of any other branch gained is counted as its value less the base's.
    """
    out: dict[str, str] = {}
    for meet in graph.nodes("sum"):  # inner sums were added before those around them
        for base in graph.sources(meet, "base"):
            for end in graph.sources(meet, "stream"):
                branch = _simple_branch(graph, end, base)
                if all(out.get(node, base) == base for node in branch):
                    out |= dict.fromkeys(branch, base)
    return out


def _simple_branch(graph: BlockGraph, end: str, base: str) -> list[str]:
    """The nodes from `end` back to `base`; none when it is more than a chain of blocks and of sums with a base."""
    out: list[str] = []
    while end != base:
        out.append(end)
        is_sum = graph.nx.nodes[end]["kind"] == "sum"
        before = graph.sources(end, "base" if is_sum else "stream")
        if len(before) != 1:
            return []
        (end,) = before
    return out


def _with_lifetimes(steps: list[Step], start: str) -> list[Step]:
    last: dict[str, int] = {start: 0}
    for i, step in enumerate(steps):
        for node in (*step.reads, step.base, step.scores_from, step.node):
            if node is not None:
                last[node] = max(last.get(node, 0), i)
    done: list[list[str]] = [[] for _ in steps]
    for node, i in last.items():
        if node != steps[-1].node:
            done[i].append(node)
    return [replace(step, done=tuple(nodes)) for step, nodes in zip(steps, done, strict=True)]
