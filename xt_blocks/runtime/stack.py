"""The lowered graph: its modules, and a forward pass over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from blockdsl.errors import GraphError, UserError
from blockdsl.graph.state import kept, why_no_documents
from blockdsl.registry.kinds import CONCAT
from blockdsl.registry.norms import final_norm
from blockdsl.registry.options import whole

from ..blocks.aliases import names_of_wrappers
from ..blocks.block import BlockOutput
from ..blocks.norms import adapted, norm
from ..blocks.residual import ResidualStreams
from ..kernels.batch_rows import batch_rows
from ..kernels.cross_entropy import softcapped
from ..kernels.documents import checked_doc_ids
from ..kernels.tensors import misfit
from ..positions.relative import Positions, scores_bias
from ..positions.rotary import Rotation
from .auxiliary import hand_out
from .by_hand import NewTokens, check_cache, check_earlier, growing_capacity
from .cache import Cache
from .context import ForwardContext, context_positions, context_seen, restarted, token_positions
from .drawn import Drawn
from .inputs import ForwardInputs, Reads
from .intermediates import Intermediates
from .memories import Memories, extended, remembered, with_earlier
from .modules import block_module, condition_module, injection_module, join_module, position_modules
from .plan import Step, given_by, plan
from .pretrained import Pretrained, the_graph
from .recompute import can_recompute, parts_of, recompute
from .saved import allow

if TYPE_CHECKING:
    from typing_extensions import Self

    from blockdsl import BlockGraph

allow()


class Stack(Drawn, Pretrained, nn.Module):
    """A block graph as a torch module.

    Args:
        graph: linted here, and copied. Its model settings, such as num_tokens, are those of a wrapper around the stack.
        blocks: the modules of its blocks by node, of tied ones by the first, where they were made elsewhere; None: they
            are made here.

    Attributes:
        graph: a copy of the graph it was lowered from.
    """

    def __init__(self, graph: BlockGraph, blocks: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__()
        names_of_wrappers(self)
        graph = graph.lint().copy()
        if graph.encoder is not None:
            hint = "xt_blocks.lower makes both, and graph.streams() has each alone"
            raise UserError(f"this graph has two streams, an encoder and a decoder; {hint}")
        self.dim = graph.dim
        if taken := [node for node in graph.tied() if hasattr(nn.ModuleDict, node)]:
            raise GraphError(f"{taken[0]}: torch's modules use this name themselves; give the node another")
        owners = {kind: [n for n in graph.tied() if graph.node_type(n) == kind] for kind in ("block", "read")}
        if blocks is None:
            blocks = {owner: block_module(graph, owner) for owner in owners["block"]}
        self.blocks = nn.ModuleDict(blocks)
        self.joins = nn.ModuleDict({owner: join_module(graph, owner) for owner in owners["read"]})
        self.positions, self.rotary = position_modules(graph)
        self.residual_streams = (
            None if graph.residual_streams == 1 else ResidualStreams(graph.dim, graph.residual_streams)
        )
        self.injection = injection_module(graph)
        self.condition_mlp = condition_module(graph)
        self.softcap: float | None = graph.nx.nodes[graph.end]["softcap"]
        self.norm = norm(final_norm(graph.nx.nodes[graph.end]), graph.dim, graph.condition[1])
        self.follow(graph)

    def follow(self, graph: BlockGraph) -> None:
        """Run its modules as this graph says from now on; it has the same sets of parameters."""
        self.graph = graph
        self.plan, self.kept = plan(graph), kept(graph)
        self.parts = parts_of(self.plan)
        self.start = graph.start
        self.reads_context = bool(graph.nodes("context"))
        rotated = [step for step in self.plan if step.rotary]
        across = any("context_rotary" in step.inputs for step in rotated)
        self.anchored = across or any(graph.nx.nodes[step.node]["options"].get("num_mem_kv") for step in rotated)
        self.reads_positions = bool(self.positions or self.rotary)
        self.attending = [step.node for step in self.plan if step.self_attends]
        attending = [step.node for step in self.plan if step.self_attends or step.own_context]
        self.reads = Reads(
            dim=graph.dim,
            context=self.reads_context,
            dim_context=graph.dim_context,
            context_positions=across,
            attends=bool(attending),
            positions=self.reads_positions,
            heads=frozenset(graph.nx.nodes[node]["options"].get("heads", 1) for node in attending),
            condition=graph.condition[0],
            value_embeds=graph.value_embeds,
            segments=frozenset(remembered(self.plan)),
            no_segments=graph.why_not_segmented(),
            no_documents=why_no_documents(graph),
        )

    @property
    def pattern(self) -> str:
        """Its text, as `BlockGraph.pattern` has it."""
        return self.graph.pattern

    @classmethod
    def from_graphs(cls, graphs: Mapping[str, BlockGraph], **arguments: Any) -> Self:
        stack = cls.__new__(cls)  # a subclass's own arguments are what made the graph
        Stack.__init__(stack, the_graph(graphs, cls, reads=None), **arguments)
        return stack

    @property
    def changes_with_length(self) -> bool:
        """Whether rotary positions depend on the length of the text, as those of rotary_scaling=dynamic do."""
        return any(rotary.by_length for rotary in self.rotary.values())

    def changes_at(self, length: int) -> bool:
        """Whether rotary positions of a text of `length` tokens are others than of one that is a token shorter."""
        return any(rotary.changes_at(length) for rotary in self.rotary.values())

    def new_cache(self, batch: int, max_len: int) -> Cache:
        """Capacity to decode `batch` sequences of up to `max_len` tokens.

        Where rotary positions change with the length, so do all values of earlier tokens, which a cache keeps as they
        were: a cached step is exact as long as `changes_at` has been false since the first one.

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
        mems: Memories | Sequence[Tensor] | None = None,
        cache: Cache | Intermediates | None = None,
        intermediates: Intermediates | None = None,
        return_hiddens: bool = False,
        condition: Tensor | None = None,
        doc_ids: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        context_pos: Tensor | None = None,
        value_embeds: Mapping[int, Tensor] | None = None,
    ) -> Any:
        """
        Args:
            x: (batch, seq, dim)
            context: (batch, context, dim or cross_attn_dim_context), for cross-attention.
            mask: (batch, seq) bool, True = a real token.
            context_mask: (batch, context) bool, True = a real token.
            attn_mask: bool, True = attend, for every self-attention: (seq, keys), (heads, seq, keys) or
                (batch, heads, seq, keys). keys: seq, or with those of mems and cache in front.
            self_attn_context_mask: (batch, seq) bool, what self-attention may attend to; others keep their place.
            pos: (seq,) or (batch, seq) int, positions of the tokens; consecutive by default.
            mems: segment memories; with a cache, at its first step only.
            cache: x follows the tokens it holds. Or the Intermediates of an earlier pass: x, mask, pos and the rows of
                attn_mask are then of the whole sequence, or of one new token; the output is of the new tokens. Another
                context or mems than the first pass had is refused.
            intermediates: filled by the pass.
            return_hiddens: return the Intermediates too, with scores and weights.
            condition: (batch, dim_condition), or (batch, seq, dim_condition) of each token, for adaptive norms and
                layer scales. A cache keeps that of rows, for steps that are given none; mems keep that of tokens.
            doc_ids: (batch, seq) or (seq,) int, which document of its row each token is of: where it changes, another
                begins, which is read as if it were alone. Positions restart there.
            cu_seqlens: (documents + 1,) int, the same as the places where they begin and end, counted through all rows.
            context_pos: (context,) or (batch, context) int, positions of the context's tokens, for cross_attn_rotary.
                By default they count from each row's first real one.
            value_embeds: by number, (batch, seq, features): what tables of token embeddings have of each token, for
                blocks with the option value_embed. A model over tokens makes them.

        Returns:
            (batch, seq, dim), and with return_hiddens the Intermediates.

        Raises:
            ValueError: a shape or dtype is wrong, something is missing, or nothing reads it.
        """
        if return_hiddens and intermediates is None:
            intermediates = Intermediates(keep_attention=True)
        check_cache(cache)
        doc_ids = doc_ids if cu_seqlens is None else checked_doc_ids(doc_ids, cu_seqlens, x)
        if isinstance(cache, Intermediates):
            once = {"context": context, "context_mask": context_mask, "context_pos": context_pos, "mems": mems}
            given = NewTokens.of(cache.tokens, x, mask, attn_mask, pos, self_attn_context_mask)
            if condition is not None and condition.ndim == 3:
                condition = condition[:, -given.x.shape[1] :]
            own = {number: vectors[:, -given.x.shape[1] :] for number, vectors in (value_embeds or {}).items()}
            return self._step_by_hand(given, mask, once, cache, intermediates, return_hiddens, condition, own)
        if intermediates is not None:
            intermediates.given = {
                "context": context,
                "context_mask": context_mask,
                "context_pos": context_pos,
                "mems": mems,
            }
        mems = self.memories(mems)
        inputs = ForwardInputs(
            x,
            context,
            mask,
            context_mask,
            attn_mask,
            self_attn_context_mask,
            pos,
            mems,
            cache,
            condition,
            doc_ids,
            context_pos,
            value_embeds,
        )
        inputs.check(self.reads)
        if cache is not None and cache.fixed is None:
            cache.begin(x, inputs.past, {} if mems is None else mems.states)
        ctx, positions = ForwardContext.of(inputs, intermediates, self.graph.causal), None
        ctx.condition = self._condition(inputs)
        ctx.value_embeds = with_earlier(mems, value_embeds or {})
        if self.reads_positions:
            positions = token_positions(inputs)
            places = positions if pos is not None else restarted(positions, ctx)
            counted = pos is None and places is positions
            ctx.rotations = self._rotations(places, inputs.mem_len + inputs.seq, ctx.seen, counted)
            if self.reads.context_positions and context is not None:
                of_context = context_positions(inputs)
                ctx.context_rotations = {node: rotary.rotation(of_context) for node, rotary in self.rotary.items()}
            ctx.biases = {node: scores_bias(module, positions) for node, module in self.positions.items()}
        out = self._run(x, ctx)
        if ctx.losses:
            hand_out(self, ctx.losses)
        if cache is not None:
            keys = None if positions is None or positions.consecutive else positions.keys
            cache.advance(ctx.seen, context_seen(inputs), keys)
        if intermediates is not None:
            intermediates.last, intermediates.attends = out, self.attending
            intermediates.inputs, intermediates.tokens = inputs, inputs.seq
            intermediates.value_embeds = {n: vectors[:, -inputs.seq :] for n, vectors in ctx.value_embeds.items()}
            intermediates.condition = None if ctx.condition is None else ctx.condition[:, -inputs.seq :]
        out = adapted(self.norm, softcapped(out, self.softcap), ctx.condition)
        return (out, intermediates) if return_hiddens else out

    def _step_by_hand(
        self,
        given: NewTokens,
        mask: Tensor | None,
        once: dict[str, Any],
        seen: Intermediates,
        intermediates: Intermediates | None,
        return_hiddens: bool,
        condition: Tensor | None,
        value_embeds: Mapping[int, Tensor],
    ) -> Any:
        """The pass over the new tokens of a step whose cache is the intermediates of an earlier one."""
        new = given.x.shape[1]
        cache = self.cache_after(seen, new)
        check_earlier(seen, mask, None if cache.mask is None else cache.mask[:, -seen.tokens :], new, **once)
        further: dict[str, Any] = {
            "return_hiddens": return_hiddens,
            "condition": condition,
            "value_embeds": value_embeds,
        }
        out = self.forward(**given._asdict(), cache=cache, intermediates=intermediates, **further)
        if intermediates is not None:
            intermediates.cache, intermediates.tokens, intermediates.given = cache, seen.tokens + new, seen.given
        return out

    def cache_after(self, seen: Intermediates, new: int) -> Cache:
        """An independent cache of what a pass of this stack has read, with capacity for `new` more tokens.

        Raises:
            ValueError: the pass was not of this stack, or continued a `Cache`, or no cache can be kept.
        """
        if (known := seen.cache) is None:
            inputs = seen.inputs
            if inputs is None or seen.streams.keys() != {step.node for step in self.plan if step.block is not None}:
                raise ValueError("cache= has intermediates that no pass of this model has filled")
            if inputs.cache is not None:
                raise ValueError("cache= has the intermediates of a pass that continued a Cache; hand on the Cache")
            known = self.new_cache(inputs.x.shape[0], growing_capacity(inputs.past + inputs.seq + new))
            self.forward(**{f.name: getattr(inputs, f.name) for f in fields(inputs)} | {"cache": known})
            if seen.sequence is not None:
                known.sequence = seen.sequence
            if torch.is_grad_enabled() or seen.last is None or not seen.last.requires_grad:
                seen.cache = known  # not before: another thread may read it, and the pass may be interrupted
        cache = known.copy()
        if cache.length + new > cache.max_len:
            cache.grow(growing_capacity(cache.length + new))
        return cache

    def memories(self, mems: Memories | Sequence[Tensor] | None) -> Memories | None:
        """Memories, also from a list of what each self-attention read, (batch, tokens, dim), as iterating them gives.

        Raises:
            ValueError: a list of another length or shape, or blocks keep more than such a list has.
        """
        if not isinstance(mems, list | tuple):
            if not isinstance(mems, Memories | None):
                raise TypeError(f"mems must be the Memories of an earlier segment, not {type(mems).__name__}")
            return mems
        if self.reads.value_embeds:
            raise ValueError("a list of mems has no value embeddings: hand on the Memories of the earlier segment")
        nodes = [step.node for step in self.plan if step.self_attends and step.node in self.reads.segments]
        if further := sorted(self.reads.segments - {*nodes}):
            raise ValueError(f"a list of mems has nothing of {further[0]}: hand on the Memories of the earlier segment")
        shapes = {(t.shape[0], t.shape[1], t.shape[-1]) for t in mems if isinstance(t, Tensor) and t.ndim == 3}
        if len(mems) != len(nodes) or len(shapes) != 1 or not all(isinstance(t, Tensor) for t in mems):
            raise ValueError(f"a list of mems must be {len(nodes)} tensors (batch, tokens, {self.dim}), all alike")
        ((_, length, _),) = shapes
        return Memories(dict(zip(nodes, mems, strict=True)), length, attends=tuple(nodes))

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
            mems: the memories it started with.
            intermediates: of the pass.
            mask: (batch, seq) bool, of the pass.
            max_mem_len: tokens to keep.
            pinned: tokens at the front of a first segment that are always kept.

        Raises:
            ValueError: the stack cannot read a text one segment after another; the message says why.
        """
        if reason := self.reads.no_segments:
            raise ValueError(f"the stack cannot read a text in segments: {reason}")
        most = whole("max_mem_len", max_mem_len)
        streams, states = intermediates.streams | intermediates.contexts, intermediates.states
        per_token = (intermediates.condition, intermediates.value_embeds)
        return extended(mems, self.plan, streams, states, mask, most, pinned, *per_token)

    def _condition(self, inputs: ForwardInputs) -> Tensor | None:
        """See `ForwardContext.condition`."""
        if inputs.condition is None:
            return None
        given = inputs.condition.to(inputs.x.dtype)
        of_rows = given[:, None] if given.ndim == 2 else given
        condition: Tensor = of_rows if self.condition_mlp is None else self.condition_mlp(of_rows)
        earlier = None if inputs.mems is None else inputs.mems.condition
        if earlier is not None:
            return torch.cat((earlier.to(condition.dtype), condition.expand(-1, inputs.seq, -1)), dim=1)
        if inputs.mem_len and condition.shape[1] > 1:
            raise ValueError("condition is of each token, but the tokens in mems have none of their own: give it rows'")
        return condition

    def _run(self, x: Tensor, ctx: ForwardContext) -> Tensor:
        if torch.compiler.is_compiling():
            return self._walk(x, ctx)
        try:
            return self._walk(x, ctx)
        except RuntimeError as error:  # asked afterwards: a look at every weight takes time
            if reason := misfit("x", x, self):
                raise ValueError(reason) from error
            raise

    def _walk(self, x: Tensor, ctx: ForwardContext) -> Tensor:
        self._begin(x, ctx)
        self._run_parts(ctx)
        return self._ended(ctx)

    def _begin(self, x: Tensor, ctx: ForwardContext) -> None:
        ctx.values[self.start] = x if self.residual_streams is None else self.residual_streams(x)
        if self.injection is not None:
            ctx.values[given_by(self.start, "injected")] = self.injection(x)

    def _run_parts(self, ctx: ForwardContext) -> None:
        cache = ctx.inputs.cache
        again = self.training and torch.is_grad_enabled() and (cache is None or not cache.keeps)
        recomputes = again and can_recompute()
        for part in self.parts:
            if part.recomputed and recomputes:
                recompute(partial(self._run_steps, part.steps), ctx)
            else:
                self._run_steps(part.steps, ctx)

    def _ended(self, ctx: ForwardContext) -> Tensor:
        (last,) = ctx.values.values()
        return last if self.residual_streams is None else last.sum(dim=-2)

    def _run_steps(self, steps: tuple[Step, ...], ctx: ForwardContext) -> None:
        blocks, joins = dict(self.blocks.items()), dict(self.joins.items())
        for step in steps:
            if step.join is not None:
                self._run_join(joins[step.join], step, ctx)
            elif step.block is None:
                self._sum(step, ctx)
            else:
                self._run_block(blocks[step.block], step, ctx)
            ctx.forget(step.done)

    def _run_block(self, block: nn.Module, step: Step, ctx: ForwardContext) -> None:
        x = _total(ctx.values, step.reads) if len(step.reads) > 1 else ctx.values[step.reads[0]]
        memory = None if ctx.inputs.mems is None else ctx.memory(step)
        mask, tail = (ctx.mask(memory), ctx.shift_state(step)) if step.use.shift else (None, None)
        given = ctx.layer_inputs(step) if step.inputs or step.gives else {}
        normed = None if step.normed_from is None else ctx.values[step.normed_from]
        if (rows := batch_rows()) is not None:
            rows.begin(step.node)
        further: tuple[Any, ...] = (normed, ctx.condition if step.reads_condition else None)
        further += (ctx.documents, None if step.injected is None else ctx.values[step.injected])
        further += (given.pop(CONCAT, None),)
        while further and further[-1] is None:
            further = further[:-1]
        out: BlockOutput = block(x, step.use, given, mask, tail, memory, *further)
        ctx.values[step.node] = out.stream
        if step.use.shares_norm and out.normed is not None:
            ctx.values[given_by(step.node, "normed")] = out.normed
        if step.keep_scores or step.gives:
            ctx.give(step, out)
        if ctx.intermediates is not None:
            ctx.record(step, x if out.read is None else out.read, out, given.get("cache"))
        if out.losses:
            ctx.losses[step.node] = out.losses
        if step.fork is not None:
            _gain(step, step.reads[0], out.update if out.adds else out.stream - x, ctx)

    def _run_join(self, join: nn.Module, step: Step, ctx: ForwardContext) -> None:
        x = _total(ctx.values, step.reads)
        stream, gained = join(x, tuple(ctx.values[node] for node in step.earlier), step.use.scale)
        ctx.values[step.node] = stream
        if step.fork is not None:
            _gain(step, step.reads[0], gained, ctx)

    def _sum(self, step: Step, ctx: ForwardContext) -> None:
        values, added = ctx.values, ctx.added
        if step.base is None:
            values[step.node] = _total(values, step.reads)
            return
        base = values[step.base]
        gains = [added[end] if end in step.counted else values[end] - base for end in step.reads]
        gained = sum(gains[1:], gains[0])
        values[step.node] = base + gained
        if step.fork is not None:
            _gain(step, step.base, gained, ctx)

    def _rotations(self, positions: Positions, tokens: int, seen: Tensor | None, counted: bool) -> dict[str, Rotation]:
        """Rotations of this pass's tokens, or of all keys.

        Args:
            seen: (batch, keys) bool, which are real; None: all.
            counted: whether positions are counted here, and not the caller's.
        """
        keys = positions.keys
        from_first = keys  # counted from each row's first real token
        if counted and seen is not None and (self.anchored or self.changes_with_length):
            padding = (seen.cumsum(dim=-1) == 0).sum(dim=-1, keepdim=True)
            from_first = (keys - padding).clamp(min=0)
        out = {}
        for node, rotary in self.rotary.items():
            # memory key-values are at the start of a row, after its padding; a context goes by where a row starts
            own = from_first if self.anchored or rotary.by_length else keys
            own = own if rotary.of_all_keys else own[..., own.shape[-1] - tokens :]
            out[node] = rotary.rotation(own, seen)
        return out


def _gain(step: Step, before: str, gained: Tensor, ctx: ForwardContext) -> None:
    """Keep what the branch has added up to this step, which follows the node `before`."""
    earlier = ctx.added.get(before) if before != step.fork else None
    ctx.added[step.node] = gained if earlier is None else earlier + gained


def _total(values: dict[str, Any], nodes: tuple[str, ...]) -> Tensor:
    return sum((values[node] for node in nodes[1:]), values[nodes[0]])
