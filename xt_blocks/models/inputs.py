"""The arguments of a sequence model's forward: what it reads, what it gives, and whether they fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor

from blockdsl.registry.options import whole

from ..kernels.cross_entropy import Target
from ..kernels.documents import Documents
from ..kernels.masks import check_attn_mask, check_mask
from ..kernels.tensors import check_tensor, check_vectors, whole_numbers
from ..runtime.cache import Cache
from ..runtime.intermediates import Intermediates
from ..runtime.memories import Memories

# Inputs that wrappers pass on to their model, by the model's names -------------------------------------------------


class ContextInputs(TypedDict, total=False):
    """For the model's cross-attention: a context (batch, context, dim), its mask (batch, context) and positions.

    And for its adaptive norms and layer scales a condition, (batch, dim_condition) or (batch, seq, dim_condition).
    """

    context: Tensor | None
    context_mask: Tensor | None
    context_pos: Tensor | None
    condition: Tensor | None


class PrefixedInputs(ContextInputs, total=False):
    """And embeddings in front of the sequence, (batch, prepended, emb_dim), with their mask (batch, prepended)."""

    prepend_embeds: Tensor | None
    prepend_mask: Tensor | None


class PlacedInputs(PrefixedInputs, total=False):
    """And inputs of each token: which others it sees, its position, what is added to its embedding, its type, and which
    document it is of."""

    attn_mask: Tensor | None
    pos: Tensor | None
    sum_embeds: Tensor | None
    token_types: Tensor | None
    doc_ids: Tensor | None
    cu_seqlens: Tensor | None


class SequenceInputs(PlacedInputs, total=False):
    """All that a sequence model reads besides the sequence and its mask."""

    self_attn_context_mask: Tensor | None
    mems: Memories | None
    cache: Cache | None
    target: Target | None
    last_only: bool


# The arguments -----------------------------------------------------------------------------------------------------


class ModelReads(NamedTuple):
    """What a model reads, so that arguments nothing would read are refused.

    Attributes:
        emb_dim: features of the embedded sequence.
        positions: the input or a block reads positions.
        learned: how many positions there are learned vectors for; None: positions are not learned.
        types: tokens have types.
    """

    emb_dim: int
    positions: bool
    learned: int | None
    types: bool = False


@dataclass
class Inputs:
    """What `SequenceModel.forward` reads, by the same names."""

    x: Tensor
    mask: Tensor | None = None
    pos: Tensor | None = None
    prepend_embeds: Tensor | None = None
    prepend_mask: Tensor | None = None
    sum_embeds: Tensor | None = None
    attn_mask: Tensor | None = None
    self_attn_context_mask: Tensor | None = None
    mems: Memories | None = None
    cache: Cache | None = None
    token_types: Tensor | None = None
    doc_ids: Tensor | None = None

    def documents(self) -> Documents:
        """Those of doc_ids."""
        assert self.doc_ids is not None
        return Documents.of(self.doc_ids)

    @property
    def mem_len(self) -> int:
        """Tokens of earlier segments."""
        return self.mems.length if isinstance(self.mems, Memories) else 0

    def check(self, reads: ModelReads) -> None:
        """
        Raises:
            ValueError: a shape or type is wrong, nothing would read an argument, or the sequence is too long.
        """
        x, held = self.x, 0 if self.cache is None else self.cache.sequence.length
        check_mask("mask", self.mask, x)
        self._check_pos(reads, held)
        if self.sum_embeds is not None:
            check_vectors("sum_embeds", self.sum_embeds, x)
        if self.sum_embeds is not None and self.sum_embeds.shape != (*x.shape[:2], reads.emb_dim):
            wanted, given = (*x.shape[:2], reads.emb_dim), tuple(self.sum_embeds.shape)
            raise ValueError(f"sum_embeds must be {wanted}, not {given}")
        self._check_types(reads)
        self._check_prepended(reads)
        check_mask("self_attn_context_mask", self.self_attn_context_mask, x)
        if self.attn_mask is not None:
            check_attn_mask(self.attn_mask, x, held + self.mem_len)

    def _check_pos(self, reads: ModelReads, held: int) -> None:
        pos, shape = self.pos, self.x.shape
        if pos is None:
            fixed = self.cache is not None and self.cache.fixed is not None
            if reads.learned is None or fixed or (end := held + shape[1]) <= reads.learned:
                return
            if self.doc_ids is None:
                raise ValueError(f"the sequence has {end} tokens; max_seq_len is {reads.learned}")
            if not torch.compiler.is_compiling() and (end := self.documents().longest()) > reads.learned:
                raise ValueError(f"a document has {end} tokens; max_seq_len is {reads.learned}")
            return
        check_tensor("pos", pos, self.x)
        self.pos = pos = whole_numbers("pos", pos, lambda: f" {tuple(shape[1:2])} or {tuple(shape[:2])}")
        if pos.shape not in (shape[:2], shape[1:2]):
            wanted = f"{tuple(shape[1:2])} or {tuple(shape[:2])}"
            raise ValueError(f"pos must be whole numbers {wanted}, not {pos.dtype} {tuple(pos.shape)}")
        if not reads.positions:
            raise ValueError("pos is given, but the model reads no positions")
        if reads.learned is None or torch.compiler.is_compiling() or not pos.numel():
            return
        if not 0 <= int(pos.min()) <= int(pos.max()) < reads.learned:
            span = f"pos goes from {pos.min()} to {pos.max()}"
            raise ValueError(f"learned positions are from 0 to {reads.learned - 1}; {span}")

    def _check_types(self, reads: ModelReads) -> None:
        types, shape = self.token_types, tuple(self.x.shape[:2])
        if types is None:
            return
        if not reads.types:
            raise ValueError("token_types is given, but the model has none: num_token_types is 0")
        check_tensor("token_types", types, self.x)
        self.token_types = whole_numbers("token_types", types, lambda: f" {shape}")
        if types.shape != shape:
            raise ValueError(f"token_types must be whole numbers {shape}, not {types.dtype} {tuple(types.shape)}")

    def _check_prepended(self, reads: ModelReads) -> None:
        prepended, rows = self.prepend_embeds, self.x.shape[0]
        if prepended is not None and self.doc_ids is not None:
            raise ValueError("prepend_embeds are before a whole row, and it has several documents")
        if prepended is None:
            if self.prepend_mask is not None:
                raise ValueError("a prepend_mask is given, but no prepend_embeds")
            return
        check_vectors("prepend_embeds", prepended, self.x)
        if prepended.ndim != 3 or prepended.shape[::2] != (rows, reads.emb_dim):
            shape = tuple(prepended.shape)
            raise ValueError(f"prepend_embeds must be ({rows}, prepended, {reads.emb_dim}), not {shape}")
        check_mask("prepend_mask", self.prepend_mask, prepended)
        if self.cache is not None and self.cache.length:
            raise ValueError("the cache holds the prepended embeddings of its first step; later steps take none")


@dataclass
class Returns:
    """The outputs that `SequenceModel.forward` is asked for, by the same names without `return_`."""

    embeddings: bool = False
    logits_and_embeddings: bool = False
    intermediates: bool = False
    attn: bool = False
    mems: bool = False
    target: Target | None = None
    last_only: bool = False
    pooled: bool = False

    def check(self, x: Tensor, has_logits: bool, has_memories: bool) -> None:
        """
        Args:
            x: (batch, seq, ...) that the model is given.

        Raises:
            ValueError: two are asked for that exclude each other, or the model has none; the target does not fit x.
            TypeError: the target is no Target.
        """
        if self.logits_and_embeddings and (self.embeddings or not has_logits):
            other = "return_embeddings is" if self.embeddings else "the model has no logits: return_only_embed is"
            raise ValueError(f"return_logits_and_embeddings is set, but {other} too")
        if self.target is not None:
            if self.embeddings or self.logits_and_embeddings or not has_logits:
                raise ValueError("a target asks for the loss, and embeddings are asked for too")
            self.target = _checked_target(self.target, x)
            if self.last_only:
                raise ValueError("last_only is set, but a target's loss is of all its tokens")
        if self.mems and not has_memories:
            raise ValueError("return_mems is set, but the model keeps no memories: give it max_mem_len=")

    def record(self) -> Intermediates | None:
        """For the pass to fill; None: nothing of it is asked for."""
        attention = self.intermediates or self.attn
        return Intermediates(keep_attention=attention) if attention or self.mems else None

    def parts(self, record: Intermediates | None) -> tuple[Any, ...]:
        """Those of a pass's Intermediates, Memories and attention weights that are asked for."""
        if record is None:
            return ()
        asked = ((self.intermediates, record), (self.mems, record.mems), (self.attn, record.attn_maps))
        return tuple(part for wanted, part in asked if wanted)


def _checked_target(target: Target, x: Tensor) -> Target:
    if not isinstance(target, Target):
        raise TypeError(f"target must be a cross_entropy.Target of tokens, not {type(target).__name__}")
    if target.reduction not in ("mean", "sum"):
        raise ValueError(f"the target's reduction must be 'mean' or 'sum', not {target.reduction!r}")

    def wanted() -> str:
        return f"({x.shape[0]}, {x.shape[1]} or fewer)"

    check_tensor("the target's tokens", target.tokens, x)
    tokens = whole_numbers("the target's tokens", target.tokens, lambda: f" {wanted()}").long()
    fits = tokens.ndim == 2 and tokens.shape[0] == x.shape[0] and tokens.shape[1] <= x.shape[1]
    if not fits:
        raise ValueError(f"the target's tokens must be {wanted()}, not {tuple(tokens.shape)}")
    return target._replace(tokens=tokens, ignore_index=whole("ignore_index", target.ignore_index, None))
