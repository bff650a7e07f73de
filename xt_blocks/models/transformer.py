"""Tokens in, logits out: embedding and positions before a stack, a linear map behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from blockdsl.graph.tokens import input_scheme
from blockdsl.registry.keywords import parameters, spells
from blockdsl.registry.options import by_name
from blockdsl.registry.tokens import TOKEN_OPTIONS

from ..blocks.embedding import SMALL_STD, Embedding
from ..blocks.linear import Linear
from ..blocks.norms import norm
from ..kernels.cross_entropy import Target
from ..kernels.hooks import runs, unhooked
from ..kernels.masks import check_mask, check_pairs
from ..positions.absolute import AbsolutePositions, input_positions
from ..runtime.cache import Cache, joined_masks
from ..runtime.drawn import Drawn
from ..runtime.intermediates import Intermediates
from ..runtime.memories import Memories
from ..runtime.stack import Stack
from .keywords import names_nearest
from .prefix import Prefix

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from blockdsl import BlockGraph
    from blockdsl.signatures import TokenSettings


class SequenceModel(Drawn, nn.Module):
    """What models over tokens and over vectors share: all between the embedded sequence and the outputs.

    A subclass says what a sequence's vectors are (`_vectors`) and what is made of the stack's output (`_outputs`).

    Attributes:
        max_seq_len: longest sequence; learned absolute positions have so many rows.
        emb_dim: features of the embedded sequence.
        dim: features of the stack.
        num_memory_tokens: learned tokens in front of the sequence while it is in the stack.
    """

    graph: BlockGraph
    return_only_embed = False
    max_mem_len = shift_mem_down = 0

    def _around(
        self,
        attn_layers: Stack,
        max_seq_len: int,
        emb_dim: int,
        scheme: str | None,
        *,
        post_emb_norm: bool,
        emb_dropout: float,
        num_memory_tokens: int,
        emb_frac_gradient: float = 1.0,
        unit: bool = False,
    ) -> None:
        """Make the modules behind the sequence's vectors, up to the stack, in the order in which they run."""
        self.max_seq_len, self.emb_dim, self.dim = max_seq_len, emb_dim, attn_layers.dim
        self.num_memory_tokens, self.emb_frac_gradient = num_memory_tokens, emb_frac_gradient
        self.pos_emb = input_positions(scheme, max_seq_len, emb_dim, unit)
        self.post_emb_norm = norm("layernorm" if post_emb_norm else None, emb_dim)
        self.emb_dropout = nn.Dropout(emb_dropout)
        self.project_emb = Linear(emb_dim, self.dim) if emb_dim != self.dim else nn.Identity()
        memory = torch.randn(num_memory_tokens, self.dim) if num_memory_tokens else None
        self.memory_tokens = None if memory is None else nn.Parameter(memory)
        self.attn_layers = attn_layers

    def _vectors(self, x: Tensor) -> Tensor:
        """The sequence as (batch, seq, emb_dim), without positions."""
        raise NotImplementedError

    def _outputs(self, hidden: Tensor) -> Tensor:
        """Of `hidden: (batch, seq, dim)`, the stack's output."""
        raise NotImplementedError

    def _loss(self, hidden: Tensor, target: Target) -> Tensor:
        """Of `hidden: (batch, seq, dim)`, the cross-entropy of its last tokens' logits."""
        raise ValueError("a target is given, but the model gives no logits of tokens")

    def _check_sequence(self, x: Tensor) -> None:
        """Raise ValueError unless x is a sequence that `_vectors` takes."""
        raise NotImplementedError

    @property
    def pattern(self) -> str:
        """The canonical text of the stack's pattern."""
        return self.graph.pattern

    def new_cache(self, batch: int, max_len: int | None = None, prepended: int = 0) -> Cache:
        """Room to decode `batch` sequences of up to `max_len` tokens, max_seq_len when not given.

        Args:
            prepended: how many embeddings the first step prepends. There is room for memory tokens anyway.

        Raises:
            ValueError: a size is no whole number of at least 0, or the model cannot be decoded one token at a time.
        """
        max_len = self.max_seq_len if max_len is None else max_len
        for name, value in (("max_len", max_len), ("prepended", prepended)):
            if value < 0:
                raise ValueError(f"{name} must be a whole number of at least 0, not {value}")
        return self.attn_layers.new_cache(batch, self.num_memory_tokens + prepended + max_len)

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
        mems: Memories | None = None,
        pos: Tensor | None = None,
        prepend_embeds: Tensor | None = None,
        prepend_mask: Tensor | None = None,
        sum_embeds: Tensor | None = None,
        attn_mask: Tensor | None = None,
        self_attn_context_mask: Tensor | None = None,
        cache: Cache | None = None,
        target: Target | None = None,
        last_only: bool = False,
    ) -> Any:
        """
        Args:
            x: (batch, seq) int tokens, or (batch, seq, dim_in) vectors.
            mask: (batch, seq) bool, True = a real token; padding may be on either side.
            context: (batch, context, dim), for cross-attention.
            context_mask: (batch, context) bool.
            return_embeddings: the stack's output in place of logits.
            return_logits_and_embeddings: both, as a pair.
            return_intermediates: give the Intermediates too, streams and attention of every block; they have the
                places of memory tokens.
            return_attn: give a list of the attention weights too, (batch, heads, seq, keys) each.
            return_mems: give the Memories behind this segment too.
            mems: memories of earlier segments. Learned positions count from the segment's start; memory tokens stand
                in front of the first segment alone, and are remembered for good. It has a real token of every row:
                only there a row's padding can go in front of them.
            pos: (seq,) or (batch, seq) int, the tokens' positions. When not given they go on from those of the cache's
                last step, or are counted from each row's first real token. What mems remember stands right before.
            prepend_embeds: (batch, prepended, emb_dim), in front of the embedded tokens; they have no positions of
                the input's. With a cache they are given at the first step.
            prepend_mask: (batch, prepended) bool, True = a real one.
            sum_embeds: (batch, seq, emb_dim), added to the embedded tokens.
            attn_mask: bool, True = attend, for every self-attention: (seq, keys), (heads, seq, keys) or
                (batch, heads, seq, keys). keys: seq, or with those of mems, or the tokens of the cache, in front.
                Memory tokens and prepended embeddings see all and are seen by all.
            self_attn_context_mask: (batch, seq) bool, tokens that self-attention may see; others keep their place.
            cache: x goes on behind the tokens it holds. With memory tokens or prepended embeddings, the first step has
                a real token of every row: only there its padding can go in front of them.
            target: what the last tokens are to predict, `cross_entropy.Target` of (batch, up to seq): the model gives
                the loss in place of logits, which it then need not hold.
            last_only: logits, outputs or embeddings of the last place alone, (batch, 1, ...): the next token's.

        Returns:
            (batch, prepended + seq, logits) logits, or a vector model's outputs, or (batch, prepended + seq, dim), or
            the target's cross-entropy in nats.
            With further things asked for a tuple: this, Intermediates, Memories, attention weights, those of them that
            were.

        Raises:
            ValueError: an argument has a wrong type or shape, arguments clash, a token is not of the vocabulary, or
                the sequence is longer than max_seq_len with learned positions.
        """
        self._check(x, mask, pos, prepend_embeds, prepend_mask, sum_embeds, cache)
        if return_logits_and_embeddings and (return_embeddings or self.return_only_embed):
            other = "return_embeddings is" if return_embeddings else "the model has no logits: return_only_embed is"
            raise ValueError(f"return_logits_and_embeddings is set, but {other} too")
        if target is not None:
            self._check_target(target, x, return_embeddings or return_logits_and_embeddings)
            if last_only:
                raise ValueError("last_only is set, but a target's loss is of all its tokens")
        if return_mems and not self.max_mem_len:
            raise ValueError("return_mems is set, but the model keeps no memories: give it max_mem_len=")
        check_mask("self_attn_context_mask", self_attn_context_mask, x)
        if attn_mask is not None:
            check_pairs(attn_mask, x, _past(mems, cache))
        if pos is None and cache is not None and cache.last_position is not None:
            pos = cache.last_position + torch.arange(1, x.shape[1] + 1, device=x.device)
        token_mask = None
        if cache is not None and cache.fixed is None:
            token_mask = cache.seen_tokens(mask, x.shape[1], x.device)
        hidden = self._embedded(x, mask, pos, sum_embeds, cache)
        hidden, prefix = self._with_prefix(hidden, mask, prepend_embeds, prepend_mask, mems, cache)
        mems = self._routed(mems)
        in_front = prefix.length + (mems.length if isinstance(mems, Memories) else 0)
        if cache is not None and cache.length:
            in_front = cache.prefix
        record = None
        if return_intermediates or return_attn or return_mems:
            record = Intermediates(keep_attention=return_intermediates or return_attn)
        hidden = self.attn_layers(
            hidden,
            context=context,
            mask=prefix.mask,
            context_mask=context_mask,
            attn_mask=None if attn_mask is None else prefix.pairs(attn_mask, x.shape[1], cache),
            self_attn_context_mask=(
                None if self_attn_context_mask is None else prefix.tokens_mask(self_attn_context_mask)
            ),
            pos=None if pos is None or not self.attn_layers.reads_positions else prefix.positions(pos) + in_front,
            mems=mems,
            cache=cache,
            intermediates=record,
        )
        if cache is not None and cache.fixed is not None:
            if pos is not None and cache.last_position is not None:
                cache.last_position.copy_(pos)
        elif cache is not None:
            cache.token_mask = token_mask
            cache.last_position = None if pos is None else pos[..., -1:]
            if in_front > cache.prefix:
                cache.prefix, cache.order = in_front, prefix.order_behind(in_front - prefix.length)
        if record is not None and return_mems:
            pinned = prefix.memory
            record.mems = self.attn_layers.remember(mems, record, prefix.mask, self.max_mem_len, pinned)
        hidden = prefix.restored(hidden)
        hidden = hidden[:, prefix.memory :] if prefix.memory else hidden
        hidden = hidden[:, -1:] if last_only else hidden
        out: Any = hidden
        if target is not None:
            out = self._loss(hidden, target)
        elif return_logits_and_embeddings:
            out = self._outputs(hidden), hidden
        elif not (return_embeddings or self.return_only_embed):
            out = self._outputs(hidden)
        if record is None:
            return out
        asked = {"record": return_intermediates, "mems": return_mems, "attn": return_attn}
        parts = {"record": record, "mems": record.mems, "attn": record.attn_maps}
        return (out, *(part for name, part in parts.items() if asked[name]))

    def _routed(self, mems: Memories | None) -> Memories | None:
        """Memories as the layers read them."""
        if not isinstance(mems, Memories) or not self.shift_mem_down:
            return mems
        nodes = [step.node for step in self.attn_layers.plan if "memory" in step.inputs]
        return mems.routed(nodes, self.shift_mem_down)

    def _embedded(
        self, x: Tensor, mask: Tensor | None, pos: Tensor | None, sum_embeds: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """(batch, seq, emb_dim): tokens and positions, normed."""
        hidden = self._vectors(x)
        if self.pos_emb is not None:
            hidden = hidden + self.pos_emb(self._positions(x, mask, cache) if pos is None else pos)
        if sum_embeds is not None:
            hidden = hidden + sum_embeds.to(hidden.dtype)
        return self.post_emb_norm(hidden)

    def _with_prefix(
        self,
        hidden: Tensor,
        mask: Tensor | None,
        prepend_embeds: Tensor | None,
        prepend_mask: Tensor | None,
        mems: Memories | None,
        cache: Cache | None,
    ) -> tuple[Tensor, Prefix]:
        """The stream that the stack is given, and what stands in front of the tokens in it."""
        batch, seq, memory, prepended = *hidden.shape[:2], 0, 0
        if prepend_embeds is not None:
            prepended = prepend_embeds.shape[1]
            hidden = torch.cat((prepend_embeds.to(hidden.dtype), hidden), dim=1)
        mask = joined_masks(prepend_mask, prepended, mask, seq, batch, hidden.device)
        if self.emb_frac_gradient < 1:
            hidden = hidden.detach() + (hidden - hidden.detach()) * self.emb_frac_gradient
        hidden = self.project_emb(self.emb_dropout(hidden) if self.emb_dropout.training else hidden)
        if self.memory_tokens is not None and mems is None and (cache is None or cache.length == 0):
            memory = self.num_memory_tokens
            mask = joined_masks(None, memory, mask, prepended + seq, batch, hidden.device)
            hidden = torch.cat((self.memory_tokens.expand(batch, -1, -1), hidden), dim=1)
        prefix = Prefix(memory, prepended, mask)
        return prefix.arranged(hidden), prefix

    def _positions(self, x: Tensor, mask: Tensor | None, cache: Cache | None) -> Tensor:
        """(seq,), or (batch, seq) counted from each row's first real token, which a cache may hold."""
        if cache is not None and cache.fixed is not None:
            place, padding = cache.fixed.place - cache.prefix, cache.fixed.padding
            return place if padding is None else (place - padding).clamp(min=0)
        past = 0 if cache is None else cache.length - cache.prefix
        end = past + x.shape[1]
        if end > self.max_seq_len and isinstance(self.pos_emb, AbsolutePositions):
            raise ValueError(f"the sequence has {end} tokens; max_seq_len is {self.max_seq_len}")
        positions = torch.arange(past, end, device=x.device)
        seen = mask if cache is None else cache.seen_tokens(mask, x.shape[1], x.device)
        if seen is None:
            return positions
        padding = (seen.cumsum(dim=-1) == 0).sum(dim=-1, keepdim=True)
        return (positions - padding).clamp(min=0)

    def _check_target(self, target: Target, x: Tensor, others: bool) -> None:
        if others or self.return_only_embed:
            raise ValueError("a target asks for the loss, and embeddings are asked for in its place")
        if not isinstance(target, Target):
            raise TypeError(f"target must be a cross_entropy.Target of tokens, not {type(target).__name__}")
        if target.reduction not in ("mean", "sum"):
            raise ValueError(f"the target's reduction must be 'mean' or 'sum', not {target.reduction!r}")
        tokens = target.tokens
        fits = tokens.ndim == 2 and tokens.shape[0] == x.shape[0] and tokens.shape[1] <= x.shape[1]
        if tokens.dtype != torch.int64 or not fits:
            wanted = f"({x.shape[0]}, {x.shape[1]} or fewer)"
            raise ValueError(f"the target's tokens must be int64 {wanted}, not {tokens.dtype} {tuple(tokens.shape)}")

    def _check(
        self,
        x: Tensor,
        mask: Tensor | None,
        pos: Tensor | None,
        prepend_embeds: Tensor | None,
        prepend_mask: Tensor | None,
        sum_embeds: Tensor | None,
        cache: Cache | None,
    ) -> None:
        self._check_sequence(x)
        check_mask("mask", mask, x)
        if pos is not None and (pos.dtype not in _INTS or pos.shape not in (x.shape[:2], x.shape[1:2])):
            wanted = f"{tuple(x.shape[1:2])} or {tuple(x.shape[:2])}"
            raise ValueError(f"pos must be int64 or int32 {wanted}, not {pos.dtype} {tuple(pos.shape)}")
        if pos is not None and self.pos_emb is None and not self.attn_layers.reads_positions:
            raise ValueError("pos is given, but the model has no positions that it could set")
        if pos is not None and isinstance(self.pos_emb, AbsolutePositions) and not torch.compiler.is_compiling():
            _check_range(pos, self.max_seq_len)
        if sum_embeds is not None and sum_embeds.shape != (*x.shape[:2], self.emb_dim):
            raise ValueError(f"sum_embeds must be {(*x.shape[:2], self.emb_dim)}, not {tuple(sum_embeds.shape)}")
        if prepend_embeds is None:
            if prepend_mask is not None:
                raise ValueError("a prepend_mask is given, but no prepend_embeds")
            return
        if prepend_embeds.ndim != 3 or prepend_embeds.shape[::2] != (x.shape[0], self.emb_dim):
            shape = tuple(prepend_embeds.shape)
            raise ValueError(f"prepend_embeds must be ({x.shape[0]}, prepended, {self.emb_dim}), not {shape}")
        check_mask("prepend_mask", prepend_mask, prepend_embeds)
        if cache is not None and cache.length:
            raise ValueError("the cache holds the prepended embeddings of its first step; later steps take none")


def _past(mems: Memories | None, cache: Cache | None) -> int:
    """What an attn_mask may have keys of in front of the tokens'."""
    return (0 if cache is None else cache.length - cache.prefix) + (mems.length if isinstance(mems, Memories) else 0)


class TransformerWrapper(SequenceModel):
    """A stack over tokens.

    The embedded sequence is tokens + positions + sum_embeds, normed, prepended embeddings in front, dropped out, and
    projected to the stack's features; memory tokens stand in front of all that in the stack.

    Args:
        num_tokens: size of the vocabulary.
        max_seq_len: longest sequence; learned absolute positions have so many rows.
        attn_layers: the stack, an Encoder, a Decoder or what `lower` gave.
        emb_dim: features of the embedding where they are not the stack's; a linear map leads from one to the other
            (ALBERT, arXiv:1909.11942).
        use_abs_pos_emb: learned absolute positions, unless the stack has rotary ones or T5's bias.
        scaled_sinu_pos_emb: sinusoids (arXiv:1706.03762) with a learned scale in their place.
        l2norm_embed: embedded tokens and learned positions are of unit length (FixNorm, arXiv:1910.05895).
        post_emb_norm: LayerNorm behind tokens and positions (BLOOM, arXiv:2211.05100).
        emb_frac_gradient: share of the gradient that reaches the embedding, above 0 and at most 1 (CogView,
            arXiv:2105.13290).
        emb_dropout: dropout of the embedded sequence.
        num_memory_tokens: learned tokens in front of the sequence while it is in the stack (arXiv:2006.11527).
        max_mem_len: how many tokens of earlier segments are kept (Transformer-XL, arXiv:1901.02860).
        shift_mem_down: how many layers further down memories are read (arXiv:2012.15688).
        tie_embedding: logits by the token embedding's own matrix (arXiv:1608.05859), without a bias and divided by
            √dim, as T5 does, since the embedding is drawn for the stream and not for logits (arXiv:1910.10683).
        logits_dim: how many logits, in place of num_tokens.
        return_only_embed: no logits; the model gives the stack's output.

    Attributes:
        graph: the whole model's BlockGraph.
        num_tokens, max_seq_len, emb_dim, num_memory_tokens, max_mem_len, shift_mem_down: as given.
        dim: features of the stack.

    Raises:
        TypeError: an unknown argument; the message names the nearest.
        UserError: a value is out of range, or two arguments clash.
    """

    @names_nearest
    @spells(parameters(by_name(TOKEN_OPTIONS)))
    def __init__(
        self, *, num_tokens: int, max_seq_len: int, attn_layers: Stack, **options: Unpack[TokenSettings]
    ) -> None:
        super().__init__()
        if not isinstance(attn_layers, Stack):
            raise TypeError(f"attn_layers must be a stack, as Decoder(...) is, not {type(attn_layers).__name__}")
        self.graph = attn_layers.graph.with_tokens(num_tokens, max_seq_len, **options)
        start, end = self.graph.nx.nodes[self.graph.start], self.graph.nx.nodes[self.graph.end]
        emb_dim, unit = self.graph.emb_dim, start["l2norm_embed"]
        std = SMALL_STD if unit else (2 / emb_dim) ** 0.5  # He et al., arXiv:1502.01852
        self.num_tokens = num_tokens
        self.token_emb = Embedding(num_tokens, emb_dim, std, unit)
        self._around(
            attn_layers,
            max_seq_len,
            emb_dim,
            input_scheme(self.graph),
            post_emb_norm=start["post_emb_norm"],
            emb_dropout=start["emb_dropout"],
            num_memory_tokens=start["num_memory_tokens"],
            emb_frac_gradient=start["emb_frac_gradient"],
            unit=unit,
        )
        self.max_mem_len = start["max_mem_len"]
        self.shift_mem_down = start["shift_mem_down"]
        self.tie_embedding: bool = end["tied"]
        self.return_only_embed = end["logits_dim"] is None
        own_logits = not (self.tie_embedding or self.return_only_embed)
        self.to_logits = Linear(self.dim, end["logits_dim"]) if own_logits else None

    def _vectors(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return self.token_emb(x)
        try:
            return self.token_emb(x)
        except IndexError:  # asked for afterwards: a check before would wait for a GPU
            span = f"from {x.min()} to {x.max()}"
            raise ValueError(f"tokens are from 0 to {self.num_tokens - 1}; these go {span}") from None

    def _outputs(self, hidden: Tensor) -> Tensor:
        if self.to_logits is None:
            return self.token_emb.scores(hidden * self.dim**-0.5)
        return self.to_logits(hidden)

    def _loss(self, hidden: Tensor, target: Target) -> Tensor:
        hidden = _last(hidden, target)
        if self.to_logits is None:
            return target.of_linear(hidden * self.dim**-0.5, self.token_emb.weight)
        if isinstance(self.to_logits, nn.Linear) and unhooked(self.to_logits):
            return target.of_linear(hidden, self.to_logits.weight, self.to_logits.bias)
        return target.of_logits(self.to_logits(hidden))

    def _check_sequence(self, x: Tensor) -> None:
        if x.ndim != 2 or x.dtype not in _INTS:
            raise ValueError(f"tokens must be int64 or int32 (batch, seq), not {x.dtype} {tuple(x.shape)}")


def loss_of(net: nn.Module, tokens: Tensor, target: Target, **read: Any) -> Any:
    """What `net(tokens, **read)` gives, with the target's cross-entropy in place of the logits.

    Logits that someone else makes, or looks at by a hook on the net, are there as they were.
    """
    if runs(net, TransformerWrapper.forward):
        return net(tokens, target=target, **read)
    out = net(tokens, **read)
    if isinstance(out, tuple):
        return target.of_logits(_last(out[0], target)), *out[1:]
    return target.of_logits(_last(out, target))


def _last(x: Tensor, target: Target) -> Tensor:
    """The end of `x: (batch, prepended + seq, ...)` that has a target."""
    return x[:, x.shape[1] - target.tokens.shape[1] :]


def _check_range(pos: Tensor, rows: int) -> None:
    if pos.numel() and not 0 <= int(pos.min()) <= int(pos.max()) < rows:
        raise ValueError(f"learned positions are from 0 to {rows - 1}; pos goes from {pos.min()} to {pos.max()}")


_INTS = (torch.int64, torch.int32)
