"""The inputs of a stack and their checks. What blocks make of them is in `context`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..kernels.documents import checked_doc_ids
from ..kernels.masks import check_attn_mask, check_mask
from ..kernels.tensors import check_tensor, whole_numbers
from .cache import Cache
from .fixed import FixedShapes
from .memories import Memories


@dataclass(frozen=True)
class Reads:
    """What a stack's blocks read, so that an argument that nothing reads is refused.

    Attributes:
        dim: features of the stream.
        context: a block attends to one.
        dim_context: its features.
        context_positions: a block reads its positions.
        attends: a block attends to tokens.
        positions: a block reads positions.
        heads: the numbers of heads of self-attention.
        condition: features of the condition that norms and layer scales read; 0: none does.
        value_embeds: the tables of value embeddings that blocks read, by number → their features.
        segments: the nodes that keep something from earlier segments.
        no_segments: why the stack cannot read a text in segments; None: it can.
        no_documents: why it cannot read several documents in a row; None: it can.
    """

    dim: int
    context: bool
    dim_context: int
    context_positions: bool
    attends: bool
    positions: bool
    heads: frozenset[int]
    condition: int
    value_embeds: Mapping[int, int]
    segments: frozenset[str]
    no_segments: str | None
    no_documents: str | None


@dataclass
class ForwardInputs:
    """The arguments of `Stack.forward`, by the same names.

    Attributes:
        seq: tokens of x.
        mem_len: tokens of earlier segments in mems.
        held: tokens that the cache holds.
        past: tokens before x that have keys: both.
    """

    x: Tensor
    context: Tensor | None = None
    mask: Tensor | None = None
    context_mask: Tensor | None = None
    attn_mask: Tensor | None = None
    self_attn_context_mask: Tensor | None = None
    pos: Tensor | None = None
    mems: Memories | None = None
    cache: Cache | None = None
    condition: Tensor | None = None
    doc_ids: Tensor | None = None
    context_pos: Tensor | None = None
    value_embeds: Mapping[int, Tensor] | None = None

    def __post_init__(self) -> None:  # arguments are checked later, in `check`
        check_tensor("x", self.x)
        self.seq = self.x.shape[1] if self.x.ndim > 1 else 0
        self.mem_len = self.mems.length if isinstance(self.mems, Memories) else 0
        self.held = 0 if self.cache is None else self.cache.length
        self.past = self.mem_len + self.held

    def check(self, reads: Reads) -> None:
        """
        Raises:
            ValueError: a shape or dtype is wrong, something is missing, or nothing reads it.
            TypeError: an argument is no tensor, or mems are no Memories.
        """
        if self.x.ndim != 3 or self.x.shape[-1] != reads.dim:
            raise ValueError(f"x must be (batch, seq, {reads.dim}), not {tuple(self.x.shape)}")
        if not self.x.is_floating_point():
            raise ValueError(f"x must be floating point, not {self.x.dtype}")
        check_mask("mask", self.mask, self.x)
        self._check_context(reads)
        self._check_condition(reads)
        self._check_value_embeds(reads)
        self._check_memories(reads)
        self._check_self_attention_masks(reads)
        self._check_pos(reads)
        self._check_documents(reads)
        if self.cache is not None:
            self.cache.check_capacity(self.x.shape[0], self.mem_len + self.seq)
            if self.cache.fixed is not None:
                self._check_fixed(self.cache.fixed)

    def _check_documents(self, reads: Reads) -> None:
        self.doc_ids = checked_doc_ids(self.doc_ids, None, self.x)
        if self.doc_ids is None:
            return
        if reads.no_documents:
            raise ValueError(f"the stack cannot read several documents in a row: {reads.no_documents}")
        if self.cache is not None or self.mems is not None:
            raise ValueError("documents are for passes without a cache or mems, which go on with one text a row")

    def _check_fixed(self, fixed: FixedShapes) -> None:
        for name in ("mask", "attn_mask"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is given, but a cache with fixed shapes takes none")
        if self.pos is not None and (fixed.positions is None or fixed.positions.ndim < self.pos.ndim):
            raise ValueError("pos is given, but the cache's shapes were fixed after steps with no such pos")

    def _check_context(self, reads: Reads) -> None:
        context, x = self.context, self.x
        if context is None and reads.context and not self.held:
            raise ValueError("the stack has cross-attention: give context=")
        if self.held and any(given is not None for given in (context, self.context_mask, self.context_pos)):
            raise ValueError("the cache holds the context of its first step; later steps take none")
        if context is not None and not reads.context:
            hint = "write 'c' in the pattern or cross_attend=True"
            raise ValueError(f"a context is given, but no block reads one: {hint}")
        if context is not None:
            check_tensor("context", context, x)
        if context is not None and (context.ndim != 3 or context.shape[::2] != (x.shape[0], reads.dim_context)):
            raise ValueError(f"context must be ({x.shape[0]}, seq, {reads.dim_context}), not {tuple(context.shape)}")
        if context is not None and not context.is_floating_point():
            raise ValueError(f"context must be floating point, not {context.dtype}")
        self.context = None if context is None else context.to(x.dtype)
        if self.context_mask is not None and context is None:
            raise ValueError("a context_mask is given, but no context")
        check_mask("context_mask", self.context_mask, context)
        if self.context_pos is None:
            return
        if context is None or not reads.context_positions:
            why = "no context" if context is None else "no block reads its positions: turn on cross_attn_rotary"
            raise ValueError(f"context_pos is given, but {why}")
        self.context_pos = _places("context_pos", self.context_pos, context)

    def _check_condition(self, reads: Reads) -> None:
        condition, rows, seq = self.condition, self.x.shape[0], self.x.shape[1]
        if condition is None and self.cache is not None:
            self.condition = condition = self.cache.condition
        if condition is None and reads.condition:
            of_step = "; of each step, if it is of each token" if self.held else ""
            raise ValueError(f"the stack has norms or layer scales that read a condition: give condition={of_step}")
        if condition is None:
            return
        if not reads.condition:
            hint = "set use_adaptive_layernorm, use_adaptive_rmsnorm or use_adaptive_layerscale"
            raise ValueError(f"a condition is given, but no norm or layer scale reads one: {hint}")
        check_tensor("condition", condition, self.x)
        places = condition.shape[1:-1]
        fits = condition.ndim in (2, 3) and condition.shape[0] == rows and condition.shape[-1] == reads.condition
        if not fits or places not in ((), (1,), (seq,)):
            wanted = f"({rows}, {reads.condition}) or ({rows}, {seq}, {reads.condition})"
            raise ValueError(f"condition must be {wanted}, not {tuple(condition.shape)}")
        if not condition.is_floating_point():
            raise ValueError(f"condition must be floating point, not {condition.dtype}")
        if self.cache is not None and self.cache.fixed is None and places in ((), (1,)):
            self.cache.condition = condition

    def _check_value_embeds(self, reads: Reads) -> None:
        given = self.value_embeds or {}
        if given.keys() != reads.value_embeds.keys():
            wanted = {number: (*self.x.shape[:2], features) for number, features in reads.value_embeds.items()}
            if not wanted:
                raise ValueError("value_embeds are given, but no block reads any: its option value_embed says which")
            raise ValueError(f"blocks read embeddings of the tokens: give value_embeds= of the shapes {wanted}")
        for number, vectors in given.items():
            check_tensor(f"value_embeds[{number}]", vectors, self.x)
            wanted_here = (*self.x.shape[:2], reads.value_embeds[number])
            if vectors.shape != wanted_here or not vectors.is_floating_point():
                shape = f"{vectors.dtype} {tuple(vectors.shape)}"
                raise ValueError(f"value_embeds[{number}] must be floating point {wanted_here}, not {shape}")

    def _check_memories(self, reads: Reads) -> None:
        if self.mems is None:
            return
        if self.mems.batch not in (0, self.x.shape[0]):
            raise ValueError(f"mems have {self.mems.batch} rows, not {self.x.shape[0]}")
        for stream in self.mems.streams.values():
            check_tensor("a stream of mems", stream, self.x)
        if self.held:
            raise ValueError("mems come before the cache's first step; later steps take none")
        if reads.no_segments:
            raise ValueError(f"the stack cannot read a text in segments: {reads.no_segments}")
        if self.mems.length and self.mems.nodes != reads.segments:
            raise ValueError("mems come from a model with other blocks")

    def _check_self_attention_masks(self, reads: Reads) -> None:
        """The masks of self-attention alone."""
        check_mask("self_attn_context_mask", self.self_attn_context_mask, self.x)
        for name in ("attn_mask", "self_attn_context_mask"):
            if getattr(self, name) is not None and not reads.attends:
                raise ValueError(f"{name} is given, but the stack has no self-attention")
        if self.self_attn_context_mask is not None and self.held:
            raise ValueError("self_attn_context_mask is for a first step; later ones hide tokens by attn_mask")
        if self.attn_mask is None:
            return
        check_attn_mask(self.attn_mask, self.x, self.past)
        heads = self.attn_mask.shape[-3] if self.attn_mask.ndim > 2 else 1
        if heads != 1 and reads.heads != {heads}:
            own = " and ".join(map(str, sorted(reads.heads)))
            raise ValueError(f"attn_mask is for {heads} heads, and the stack's self-attention has {own}")

    def _check_pos(self, reads: Reads) -> None:
        pos, x = self.pos, self.x
        if pos is None:
            return
        if not reads.positions:
            hint = "turn on rotary_pos_emb or a position bias"
            raise ValueError(f"pos is given, but no block reads positions: {hint}")
        self.pos = _places("pos", pos, x)


def _places(name: str, pos: Tensor, x: Tensor) -> Tensor:
    """Checked positions of the tokens of `x: (batch, seq, dim)`."""
    check_tensor(name, pos, x)
    places = whole_numbers(name, pos, lambda: f" ({x.shape[1]},) or {tuple(x.shape[:2])}")
    if pos.shape not in (x.shape[1:2], x.shape[:2]):
        wanted = f"({x.shape[1]},) or {tuple(x.shape[:2])}"
        raise ValueError(f"{name} must be whole numbers {wanted}, not {pos.dtype} {tuple(pos.shape)}")
    return places
