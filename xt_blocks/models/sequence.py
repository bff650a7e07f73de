"""What models over tokens and over vectors share: everything between the embedded sequence and the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from blockdsl.graph.tokens import input_scheme
from blockdsl.registry.norms import embedding_norm
from blockdsl.registry.options import whole

from ..blocks.aliases import names_of_wrappers
from ..blocks.dropout import FeatureDropout
from ..blocks.linear import apply
from ..blocks.norms import norm
from ..kernels.cross_entropy import Target
from ..kernels.documents import checked_doc_ids
from ..positions.absolute import input_positions
from ..runtime.by_hand import NewTokens, check_cache, check_earlier
from ..runtime.cache import Cache
from ..runtime.drawn import Drawn
from ..runtime.intermediates import Intermediates
from ..runtime.memories import Memories
from ..runtime.pretrained import Pretrained, the_graph
from ..runtime.sequence import SequenceState
from ..runtime.stack import Stack
from .inputs import Inputs, ModelReads, Returns
from .prefix import Prefix

if TYPE_CHECKING:
    from typing import Literal, overload

    from typing_extensions import Self, Unpack

    from blockdsl import BlockGraph

    from .inputs import SequenceInputs


class SequenceModel(Drawn, Pretrained, nn.Module):
    """What models over tokens and over vectors share: everything between the embedded sequence and the outputs.

    A subclass defines a sequence's vectors (`_vectors`) and what the stack's output becomes (`_outputs`).

    Attributes:
        max_seq_len: longest sequence, and the number of learned absolute positions; None: any length.
        emb_dim: features of the embedded sequence.
        dim: features of the stack.
        num_memory_tokens: learned tokens before the sequence in the stack.
    """

    graph: BlockGraph
    over: ClassVar[str]
    return_only_embed = unit = False
    pool: str | None = None
    has_vector = False
    max_mem_len = shift_mem_down = 0
    emb_frac_gradient = 1.0

    def _build(self, attn_layers: Stack) -> None:
        """Make the modules from the sequence's vectors to the stack, in order, as the graph's input says."""
        names_of_wrappers(self)
        start, end = self.graph.nx.nodes[self.graph.start], self.graph.nx.nodes[self.graph.end]
        scheme, emb_dim = input_scheme(self.graph), self.graph.emb_dim
        self.max_seq_len: int | None = start["max_seq_len"] or None
        self.emb_dim, self.dim = emb_dim, attn_layers.dim
        self.num_memory_tokens: int = start["num_memory_tokens"]
        self.pos_emb = input_positions(scheme, start["max_seq_len"], emb_dim, self.unit, start["pos_offset"])
        self.post_emb_norm = norm(embedding_norm(end) if start["post_emb_norm"] else None, emb_dim)
        self.emb_dropout = FeatureDropout(start["emb_dropout"])
        self.project_emb = nn.Linear(emb_dim, self.dim) if emb_dim != self.dim else nn.Identity()
        memory = self.num_memory_tokens
        self.memory_tokens = nn.Parameter(torch.randn(memory, self.dim)) if memory else None
        self.attn_layers = attn_layers
        learned = self.max_seq_len if scheme == "absolute" else None
        self.reads = ModelReads(emb_dim, scheme is not None or attn_layers.reads_positions, learned)

    def _places(self, x: Tensor, mask: Tensor | None, cached: bool) -> tuple[Tensor, Tensor | None]:
        """x and its mask with as many places as the stack has: a front end may have fewer of them."""
        return x, mask

    def places_of(self, mask: Tensor | None) -> Tensor | None:
        """`mask: (batch, seq)` of the sequence → (batch, places) of the stack's places."""
        return mask

    def _vectors(self, x: Tensor) -> Tensor:
        """The sequence as (batch, seq, emb_dim), without positions."""
        raise NotImplementedError

    def _outputs(self, hidden: Tensor) -> Tensor:
        """From `hidden: (batch, seq, dim)`, the stack's output: logits (batch, seq, logits), or vectors."""
        raise NotImplementedError

    def _loss(self, hidden: Tensor, target: Target) -> Tensor:
        """From `hidden: (batch, seq, dim)`, the cross-entropy of its last tokens' logits."""
        raise ValueError("a target is given, but the model gives no logits of tokens")

    def checked_sequence(self, x: Tensor) -> Tensor:
        """x in a type that `_vectors` takes.

        Raises:
            TypeError: it is no tensor.
            ValueError: it is no sequence that the model takes.
        """
        raise NotImplementedError

    @classmethod
    def from_graphs(cls, graphs: Mapping[str, BlockGraph], **arguments: Any) -> Self:
        graph = the_graph(graphs, cls, reads=cls.over)
        return cls(attn_layers=Stack(graph.stack_alone()), **graph.model_options(), **arguments)

    @property
    def pattern(self) -> str:
        """The canonical text of the stack's pattern."""
        return self.graph.pattern

    def new_cache(self, batch: int, max_len: int | None = None, prepended: int = 0) -> Cache:
        """Capacity to decode `batch` sequences of up to `max_len` tokens, by default max_seq_len.

        Args:
            prepended: number of embeddings the first step prepends. Memory tokens are always included.

        Raises:
            ValueError: a size is negative, the model is of any length and max_len is left out, or it cannot be decoded
                one token at a time.
        """
        max_len = self.max_seq_len if max_len is None else max_len
        if max_len is None:
            raise ValueError("the model has no max_seq_len, and a cache has a capacity: give max_len=")
        max_len, prepended = whole("max_len", max_len), whole("prepended", prepended)
        return self.attn_layers.new_cache(batch, self.num_memory_tokens + prepended + max_len)

    if TYPE_CHECKING:  # the return type of a call

        @overload
        def __call__(
            self,
            x: Tensor,
            mask: Tensor | None = None,
            *,
            return_embeddings: bool = ...,
            **inputs: Unpack[SequenceInputs],
        ) -> Tensor: ...
        @overload
        def __call__(
            self,
            x: Tensor,
            mask: Tensor | None = None,
            *,
            return_logits_and_embeddings: Literal[True],
            **inputs: Unpack[SequenceInputs],
        ) -> tuple[Tensor, Tensor]: ...
        @overload
        def __call__(
            self, x: Tensor, mask: Tensor | None = None, *, return_mems: Literal[True], **inputs: Unpack[SequenceInputs]
        ) -> tuple[Tensor, Memories]: ...
        @overload
        def __call__(
            self,
            x: Tensor,
            mask: Tensor | None = None,
            *,
            return_intermediates: Literal[True],
            **inputs: Unpack[SequenceInputs],
        ) -> tuple[Tensor, Intermediates]: ...
        @overload
        def __call__(
            self, x: Tensor, mask: Tensor | None = None, *, return_attn: Literal[True], **inputs: Unpack[SequenceInputs]
        ) -> tuple[Tensor, list[Tensor]]: ...
        @overload
        def __call__(self, *inputs: Any, **keywords: Any) -> Any: ...
        def __call__(self, *inputs: Any, **keywords: Any) -> Any: ...

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        return_embeddings: bool = False,
        return_logits_and_embeddings: bool = False,
        return_intermediates: bool = False,
        return_attn: bool = False,
        return_mems: bool = False,
        mems: Memories | Sequence[Tensor] | None = None,
        pos: Tensor | None = None,
        prepend_embeds: Tensor | None = None,
        prepend_mask: Tensor | None = None,
        sum_embeds: Tensor | None = None,
        attn_mask: Tensor | None = None,
        self_attn_context_mask: Tensor | None = None,
        cache: Cache | Intermediates | None = None,
        target: Target | None = None,
        last_only: bool = False,
        token_types: Tensor | None = None,
        return_pooled: bool = False,
        condition: Tensor | None = None,
        doc_ids: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        context_pos: Tensor | None = None,
    ) -> Tensor | tuple[Any, ...]:
        """
        Args:
            x: (batch, seq) int tokens, or (batch, seq, dim_in) vectors.
            mask: (batch, seq) bool, True = a real token; padding may be on either side.
            context: (batch, context, dim), for cross-attention.
            context_mask: (batch, context) bool.
            return_embeddings: the stack's output instead of logits.
            return_logits_and_embeddings: both, as a pair.
            return_intermediates: return the Intermediates too, streams and attention of every block; they include
                memory tokens.
            return_attn: return a list of the attention weights too, (batch, heads, seq, keys) each.
            return_mems: return the Memories after this segment too.
            mems: memories of earlier segments, or a list of what each self-attention read in them. Learned positions
                count from the segment's start; memory tokens come before the first segment only, and are always kept.
                It must have a real token in every row: only there can a row's padding go before them.
            pos: (seq,) or (batch, seq) int, the tokens' positions. By default they continue from the cache's last
                step, or count from each row's first real token. Tokens in mems come right before.
            prepend_embeds: (batch, prepended, emb_dim), before the embedded tokens; they get no absolute
                positions. With a cache, at the first step only.
            prepend_mask: (batch, prepended) bool, True = a real one.
            sum_embeds: (batch, seq, emb_dim), added to the embedded tokens.
            attn_mask: bool, True = attend, for every self-attention: (seq, keys), (heads, seq, keys) or
                (batch, heads, seq, keys). keys: seq, or with those of mems, or the tokens of the cache, in front.
                Memory tokens and prepended embeddings see all and are seen by all.
            self_attn_context_mask: (batch, seq) bool, what self-attention may attend to; others keep their place.
            cache: x follows the tokens it holds. Or the Intermediates of an earlier pass, for steps by hand: x, mask,
                pos, sum_embeds, token_types and the rows of attn_mask are then of the whole sequence, or of one new
                token, and what is returned is of the new tokens. Context, prepended embeddings and mems are those of
                the first pass; others are refused, and so is a mask that differs where it has been read.
                With memory tokens or prepended embeddings, the first step must have a real token in every row: only
                there can its padding go before them.
            target: what the last tokens should predict, `cross_entropy.Target` of (batch, up to seq): returns the loss
                instead of logits, without holding all logits.
            token_types: (batch, seq) int, the type of each token, where the model has types; by default type 0.
            return_pooled: return one vector for each sequence too, (batch, dim), where the model has pool or pooler.
            condition: (batch, dim_condition), or (batch, seq, dim_condition) of each token, for adaptive norms and
                layer scales; memory tokens and prepended embeddings then have zeros. A cache keeps that of rows.
            doc_ids: (batch, seq) or (seq,) int, which document of its row each token is of: where it changes, another
                begins. Each is read as if it were alone, with positions of its own.
            cu_seqlens: (documents + 1,) int, the same as the places where they begin and end, counted through all rows.
            context_pos: (context,) or (batch, context) int, positions of the context's tokens, for cross_attn_rotary.
                By default they count from each row's first real one.
            last_only: logits, outputs or embeddings of the last place alone, (batch, 1, ...): the next token's.

        Returns:
            (batch, prepended + seq, logits) logits, or a vector model's outputs, or (batch, prepended + seq, dim), or
            the target's cross-entropy in nats; with pool, (batch, logits), or (batch, dim) without logits.
            If more is requested, a tuple: this, then the pooled vector, Intermediates, Memories and attention weights
            as requested.

        Raises:
            ValueError: an argument has a wrong dtype or shape, arguments clash, a token is not in the vocabulary, or
                the sequence is longer than max_seq_len with learned positions.
        """
        x = self.checked_sequence(x)
        check_cache(cache)
        x, mask = self._places(x, mask, cached=cache is not None)
        once = {
            "context": context,
            "context_mask": context_mask,
            "context_pos": context_pos,
            "mems": mems,
            "prepend_embeds": prepend_embeds,
            "prepend_mask": prepend_mask,
        }
        state = cache if isinstance(cache, Cache) else None
        seen = cache if isinstance(cache, Intermediates) else None
        if seen is not None:
            if seen.sequence is None:
                raise ValueError("cache= has intermediates of a stack alone; this model needs those of its own pass")
            sequence, whole_mask = seen.sequence, mask
            x, mask, attn_mask, pos = NewTokens.of(sequence.length, x, mask, attn_mask, pos, self_attn_context_mask)
            check_earlier(seen, whole_mask, sequence.mask, x.shape[1], **once)
            state = self.attn_layers.cache_after(seen, x.shape[1])
            context = context_mask = context_pos = None
            prepend_embeds = prepend_mask = self_attn_context_mask = mems = None
            sum_embeds = None if sum_embeds is None else sum_embeds[:, -x.shape[1] :]
            token_types = None if token_types is None else token_types[:, -x.shape[1] :]
            condition = condition if condition is None or condition.ndim < 3 else condition[:, -x.shape[1] :]
        mems = self.attn_layers.memories(mems)
        inputs = Inputs(
            x,
            mask,
            pos,
            prepend_embeds,
            prepend_mask,
            sum_embeds,
            attn_mask,
            self_attn_context_mask,
            mems,
            state,
            token_types,
            self._documents(x, doc_ids, cu_seqlens),
        )
        returns = Returns(
            return_embeddings,
            return_logits_and_embeddings,
            return_intermediates,
            return_attn,
            return_mems,
            target,
            last_only,
            return_pooled,
        )
        inputs.check(self.reads)
        returns.check(x, not self.return_only_embed, self.max_mem_len > 0)
        self._check_pooled(returns, cache)
        pos = inputs.pos
        before = SequenceState() if state is None else state.sequence
        mems = self._routed(mems)
        prefix = Prefix(inputs, self._in_front() if mems is None and before.empty else None)
        real = before.extended(mask, x)  # (batch, earlier tokens + seq), or None
        pos = before.next_positions(x) if pos is None else pos
        record = returns.record()

        places = pos
        if pos is None and self.pos_emb is not None:
            counted = (
                before.counted_positions(x, real) if inputs.doc_ids is None else inputs.documents().positions(mask)
            )
            places = counted
        hidden = self._embedded(x, places, sum_embeds, inputs.token_types)
        hidden = self._projected(prefix.prepended(hidden))  # (batch, prepended + seq, dim)
        stream = prefix.stream(hidden)  # (batch, memory + prepended + seq, dim)
        in_front = before.prefix + prefix.length + inputs.mem_len
        stream = self.attn_layers(
            stream,
            context=context,
            mask=prefix.mask,
            context_mask=context_mask,
            context_pos=context_pos,
            attn_mask=None if attn_mask is None else prefix.attn_mask(attn_mask, x.shape[1], before),
            self_attn_context_mask=(
                None if self_attn_context_mask is None else prefix.tokens_mask(self_attn_context_mask)
            ),
            pos=None if pos is None or not self.attn_layers.reads_positions else prefix.positions(pos) + in_front,
            mems=mems,
            cache=state,
            intermediates=record,
            condition=prefix.condition(condition, x.shape[1]),
            doc_ids=inputs.doc_ids,
            value_embeds={number: prefix.vectors(v) for number, v in self._value_embeds(x).items()},
        )
        if state is not None or record is not None:
            before.advance(x.shape[1], real, pos, in_front, prefix.order_after(inputs.mem_len))
        learned = prefix.memory_outputs(stream)
        if record is not None:
            record.sequence = before
            memory = self.num_memory_tokens
            record.memory_tokens = learned[:, :memory] if memory and learned is not None else None
            record.given = once
            if seen is not None:
                record.cache, record.tokens, record.given = state, seen.tokens + x.shape[1], seen.given
        if record is not None and return_mems:
            mems = mems if seen is None else self._remembered(seen)
            record.mems = self.attn_layers.remember(mems, record, prefix.mask, self.max_mem_len, prefix.memory)
        return self._returned(prefix.outputs(stream), returns, record, inputs, learned)

    def _documents(self, x: Tensor, doc_ids: Tensor | None, cu_seqlens: Tensor | None) -> Tensor | None:
        """(batch, seq) int of x: (batch, seq, ...).

        Raises:
            ValueError: something else than tokens is in the stream, or the model pools rows.
        """
        doc_ids = checked_doc_ids(doc_ids, cu_seqlens, x)
        if doc_ids is None:  # a compiled pass looks at no graph
            return None
        in_the_way = {
            "memory tokens are before": self.num_memory_tokens,
            f"pool={self.pool} is of": self.pool,
            "conv_stem reads across": self.graph.nx.nodes[self.graph.start]["conv_stem"],
        }
        for what, so in in_the_way.items():
            if so:
                raise ValueError(f"several documents are in a row, but the model's {what} a whole row")
        return doc_ids

    def _remembered(self, seen: Intermediates) -> Memories:
        """The memories after a pass by hand, for the next one to add to."""
        if seen.mems is not None:
            return seen.mems
        if seen.inputs is None or seen.inputs.cache is not None:
            raise ValueError("return_mems is set at a step by hand, but was not at the one before")
        mems = seen.inputs.mems
        memory = self.num_memory_tokens if mems is None else 0
        return self.attn_layers.remember(mems, seen, seen.inputs.mask, self.max_mem_len, memory)

    def _embedded(self, x: Tensor, pos: Tensor | None, sum_embeds: Tensor | None, token_types: Tensor | None) -> Tensor:
        """(batch, seq, emb_dim): tokens or vectors with their positions, (seq,) or (batch, seq), normed."""
        hidden = self._vectors(x)
        if self.pos_emb is not None:
            hidden = hidden + self._positions(x, pos)
        if (types := self._types(x, token_types)) is not None:
            hidden = hidden + types
        if sum_embeds is not None:
            hidden = hidden + sum_embeds.to(hidden.dtype)
        return self.post_emb_norm(hidden)

    def _value_embeds(self, x: Tensor) -> Mapping[int, Tensor]:
        """By number, (batch, seq, features): what tables have of the tokens x, for blocks' values."""
        return {}

    def _types(self, x: Tensor, token_types: Tensor | None) -> Tensor | None:
        """(batch, seq, emb_dim), what the types (batch, seq) of tokens x add, or (1, 1, emb_dim); None: nothing."""
        return None

    def _positions(self, x: Tensor, pos: Tensor | None) -> Tensor:
        """(seq, emb_dim) or (batch, seq, emb_dim): what the positions (seq,) or (batch, seq) of x add."""
        vectors: Tensor = self.pos_emb(pos)  # type: ignore[misc]
        return vectors

    def _projected(self, embedded: Tensor) -> Tensor:
        """`embedded: (batch, prepended + seq, emb_dim)` with the stack's features, (batch, prepended + seq, dim)."""
        if self.emb_frac_gradient < 1:
            embedded = embedded.detach() + (embedded - embedded.detach()) * self.emb_frac_gradient
        return apply(self.project_emb, self.emb_dropout(embedded) if self.emb_dropout.training else embedded)

    def _routed(self, mems: Memories | None) -> Memories | None:
        """Memories as shift_mem_down routes them to layers."""
        if not isinstance(mems, Memories) or not self.shift_mem_down:
            return mems
        nodes = [step.node for step in self.attn_layers.plan if "memory" in step.inputs]
        return mems.routed(nodes, self.shift_mem_down)

    def _check_pooled(self, returns: Returns, cache: Cache | Intermediates | None) -> None:
        """
        Raises:
            ValueError: a pooled vector is asked for and there is none, or the model pools and cannot do what is asked.
        """
        if returns.pooled and not self.has_vector:
            raise ValueError("return_pooled is set, but the model has neither pool nor pooler")
        whole = {"last_only is set": returns.last_only, "a cache is given": cache is not None}
        if self.pool is not None:
            for what, so in {"a target is given": returns.target is not None, **whole}.items():
                if so:
                    raise ValueError(f"{what}, but the model has pool={self.pool}: one output for a whole sequence")
        elif returns.pooled:
            for what, so in whole.items():
                if so:
                    raise ValueError(f"return_pooled is set, but {what} too")

    def _in_front(self) -> Tensor | None:
        """(n, dim): the learned tokens before a text in the stack."""
        return self.memory_tokens

    def _pooled(self, hidden: Tensor, inputs: Inputs, in_front: Tensor | None) -> Tensor:
        """(batch, dim), one vector for each sequence, or several, (batch, n, dim).

        Args:
            hidden: (batch, seq, dim)
            inputs: what was read.
            in_front: (batch, n, dim), the outputs of the learned tokens before the text.
        """
        raise NotImplementedError

    def _returned(
        self,
        hidden: Tensor,
        returns: Returns,
        record: Intermediates | None,
        inputs: Inputs,
        in_front: Tensor | None,
    ) -> Tensor | tuple[Any, ...]:
        """What was requested, from `hidden: (batch, prepended + seq, dim)`."""
        hidden = hidden[:, -1:] if returns.last_only else hidden
        every, vector = hidden, None
        if self.pool is not None or returns.pooled:
            vector = self._pooled(hidden[:, hidden.shape[1] - inputs.x.shape[1] :], inputs, in_front)
            hidden = hidden if self.pool is None else vector
        out: Any = every if returns.embeddings else hidden
        if returns.target is not None:
            out = self._loss(hidden, returns.target)
        elif returns.logits_and_embeddings:
            out = self._outputs(hidden), every
        elif not (returns.embeddings or self.return_only_embed):
            out = self._outputs(hidden)
        parts = (*((vector,) if returns.pooled else ()), *returns.parts(record))
        return (out, *parts) if parts else out
