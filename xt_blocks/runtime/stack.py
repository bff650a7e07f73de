"""The lowered graph: its modules, and a forward pass over them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from blockdsl.errors import GraphError
from blockdsl.graph.state import kept

from ..blocks.block import Residual
from ..blocks.norms import norm
from ..positions.relative import Positions, scores_bias
from ..positions.rotary import Rotation, rotation
from .cache import Cache
from .context import ForwardContext, context_seen, positions_of
from .drawn import Drawn
from .inputs import ForwardInputs, Reads
from .intermediates import Intermediates
from .memories import Memories, extended, tokens_needed
from .modules import block_module, position_modules
from .plan import Step, plan
from .recompute import may_run_again, run_again, segments

if TYPE_CHECKING:
    from blockdsl import BlockGraph


class Stack(Drawn, nn.Module):
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
        self.blocks = nn.ModuleDict({owner: block_module(graph, owner) for owner in graph.tied()})
        self.positions, self.rotary = position_modules(graph)
        self.norm = norm(graph.nx.nodes[graph.end]["norm"], graph.dim)
        self.plan, self.kept = plan(graph), kept(graph)
        self.segments = segments(self.plan)
        self.start = graph.start
        self.reads_context = bool(graph.nodes("context"))
        options = (graph.nx.nodes[step.node]["options"] for step in self.plan if step.rotary)
        self.anchored = any(own.get("num_mem_kv") for own in options)
        self.reads_positions = bool(self.positions or self.rotary)
        seeing = [step.node for step in self.plan if "attend" in step.inputs and "context" not in step.inputs]
        self.reads = Reads(
            dim=graph.dim,
            context=self.reads_context,
            attends=bool(seeing),
            positions=self.reads_positions,
            heads=frozenset(graph.nx.nodes[node]["options"].get("heads", 1) for node in seeing),
            segments=frozenset(
                step.node for step in self.plan if step.block is not None and (tokens_needed(step) != 0 or step.carries)
            ),
            no_segments=graph.why_not_segmented(),
        )

    @property
    def pattern(self) -> str:
        """The canonical text of the pattern it was made from."""
        return self.graph.pattern

    def new_cache(self, batch: int, max_len: int) -> Cache:
        """Capacity to decode `batch` sequences of up to `max_len` tokens.

        Raises:
            ValueError: the stack cannot be decoded one token at a time; the message says why.
        """
        if reason := self.graph.why_not_cached():
            raise ValueError(f"no cache can be kept: {reason}")
        return Cache(batch, max_len, self.kept)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        self_attn_context_mask: Tensor | None = None,
        pos: Tensor | None = None,
        mems: Memories | None = None,
        cache: Cache | None = None,
        intermediates: Intermediates | None = None,
        return_hiddens: bool = False,
    ) -> Any:
        """
        Args:
            x: (batch, seq, dim)
            context: (batch, context, dim), for cross-attention.
            mask: (batch, seq) bool, True = a real token.
            context_mask: (batch, context) bool, True = a real token.
            attn_mask: bool, True = attend, for every self-attention: (seq, keys), (heads, seq, keys) or
                (batch, heads, seq, keys). keys: seq, or with those of mems and cache in front.
            self_attn_context_mask: (batch, seq) bool, tokens that self-attention may see; others keep their place.
            pos: (seq,) or (batch, seq) int, where the tokens stand; one after the other when not given.
            mems: memories of earlier segments; with a cache, at its first step.
            cache: x goes on after the tokens it holds.
            intermediates: filled with what the pass went through.
            return_hiddens: return such Intermediates too.

        Returns:
            (batch, seq, dim), and with return_hiddens the Intermediates.

        Raises:
            ValueError: a shape or type is wrong, or something is missing or nothing would read it.
        """
        inputs = ForwardInputs(x, context, mask, context_mask, attn_mask, self_attn_context_mask, pos, mems, cache)
        inputs.check(self.reads)
        if return_hiddens and intermediates is None:
            intermediates = Intermediates()
        if cache is not None and cache.fixed is None:
            cache.begin(x, inputs.past, {} if mems is None else mems.states)
        forward, positions = ForwardContext.of(inputs, intermediates), None
        if self.reads_positions:
            positions, counted = positions_of(inputs), forward.seen if pos is None else None
            forward.rotations = self._rotations(positions, inputs.remembered + inputs.seq, counted)
            forward.biases = {node: scores_bias(module, positions) for node, module in self.positions.items()}
        out = self._walk(x, forward)
        if cache is not None:
            keys = None if positions is None or positions.consecutive else positions.keys
            cache.advance(forward.seen, context_seen(inputs), keys)
        if intermediates is not None:
            intermediates.last = out
        out = self.norm(out)
        return (out, intermediates) if return_hiddens else out

    def remember(
        self,
        mems: Memories | None,
        intermediates: Intermediates,
        mask: Tensor | None,
        max_mem_len: int,
        pinned: int = 0,
    ) -> Memories:
        """The memories after a pass.

        Args:
            mems: those it started with.
            intermediates: what it went through.
            mask: (batch, seq) bool that it had.
            max_mem_len: tokens to remember.
            pinned: tokens at the front of a first segment that are remembered for good.

        Raises:
            ValueError: the stack cannot read a text one segment after another; the message says why.
        """
        if reason := self.reads.no_segments:
            raise ValueError(f"the stack cannot read a text in segments: {reason}")
        return extended(mems, self.plan, intermediates.streams, intermediates.states, mask, max_mem_len, pinned)

    def _walk(self, x: Tensor, forward: ForwardContext) -> Tensor:
        forward.values[self.start] = x
        again = self.training and torch.is_grad_enabled() and forward.inputs.cache is None and may_run_again()
        for segment in self.segments:
            if segment.again and again:
                run_again(partial(self._run_steps, segment.steps), forward)
            else:
                self._run_steps(segment.steps, forward)
        (last,) = forward.values.values()
        return last

    def _run_steps(self, steps: tuple[Step, ...], forward: ForwardContext) -> None:
        blocks = dict(self.blocks.items())
        for step in steps:
            if step.block is None:
                self._sum(step, forward)
            else:
                self._run_block(blocks[step.block], step, forward)
            forward.forget(step.done)

    def _run_block(self, block: nn.Module, step: Step, forward: ForwardContext) -> None:
        x = _total(forward.values, step.reads) if len(step.reads) > 1 else forward.values[step.reads[0]]
        memory = None if forward.inputs.mems is None else forward.memory(step)
        shift = (forward.mask(memory), forward.shift_state(step)) if step.use.shift else (None, None)
        given = forward.layer_inputs(step) if step.inputs else {}
        out: Residual = block(x, step.use, given, *shift, memory)
        forward.values[step.node] = out.stream
        if step.keep_scores or forward.intermediates is not None:
            forward.record(step, x, out.scores, given.get("cache"))
        if step.fork is not None:
            gained = out.update if out.adds else out.stream - x
            before = forward.added.get(step.reads[0]) if step.reads[0] != step.fork else None
            forward.added[step.node] = gained if before is None else before + gained

    def _sum(self, step: Step, forward: ForwardContext) -> None:
        values, added = forward.values, forward.added
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

    def _rotations(self, positions: Positions, tokens: int, seen: Tensor | None) -> dict[str, Rotation]:
        """Of this call's tokens; of all keys where they decay with distance."""
        keys = positions.keys
        if self.anchored and seen is not None:  # memories stand where a row starts, which is after its padding
            padding = (seen.cumsum(dim=-1) == 0).sum(dim=-1, keepdim=True)
            keys = (keys - padding).clamp(min=0)
        return {
            node: rotation(keys if base else keys[..., keys.shape[-1] - tokens :], dim, base)
            for node, (dim, base) in self.rotary.items()
        }


def _total(values: dict[str, Tensor], nodes: tuple[str, ...]) -> Tensor:
    return sum((values[node] for node in nodes[1:]), values[nodes[0]])
