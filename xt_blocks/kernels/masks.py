"""Which query attends to which key: every mask of a forward pass, resolved once.

Owns the meaning of masks (boolean, True = attend). A kernel gets an `AttentionMask` and needs nothing else. A fully
masked row is opened so that its softmax is finite, and its output is set to zero.

The order of keys: memory key-values, which all queries attend to and which have no position bias; tokens of the past;
the tokens of this pass.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..positions.relative import RelativeBias
from .documents import Documents
from .tensors import WHOLE, check_tensor


class Bias(NamedTuple):
    """The position bias of the scores of a block.

    Attributes:
        nodes: the position nodes it comes from, which identify it in a forward pass.
        values: for tokens; memory key-values have none.
    """

    nodes: tuple[str, ...]
    values: RelativeBias


def check_mask(name: str, mask: Tensor | None, of: Tensor | None) -> None:
    """Raise ValueError unless `mask` is boolean and (batch, seq) of `of: (batch, seq, ...)`; TypeError if no tensor."""
    if mask is None or of is None:
        return
    check_tensor(name, mask, of)
    if mask.dtype != torch.bool:
        raise ValueError(_not_boolean(name, mask))
    if mask.shape != of.shape[:2]:
        raise ValueError(f"{name} must be {tuple(of.shape[:2])}, not {tuple(mask.shape)}")


def _not_boolean(name: str, mask: Tensor) -> str:
    hint = f"; {name}.bool() is, if 1 = attend" if mask.dtype in WHOLE else ""
    return f"{name} must be boolean, True = attend, not {mask.dtype}{hint}"


def joined_masks(
    first: Tensor | None, first_len: int, second: Tensor | None, second_len: int, batch: int, device: torch.device
) -> Tensor | None:
    """(batch, first_len + second_len) bool: one mask after the other, where None masks nothing."""
    if first is None and second is None:
        return None
    pair = ((first, first_len), (second, second_len))
    masks = [torch.ones(batch, n, dtype=torch.bool, device=device) if mask is None else mask for mask, n in pair]
    return torch.cat(masks, dim=1)


def check_attn_mask(attn_mask: Tensor, x: Tensor, past: int) -> None:
    """Raise ValueError unless `attn_mask` is boolean and for queries and keys of `x: (batch, seq, dim)`."""
    seq = x.shape[1]
    check_tensor("attn_mask", attn_mask, x)
    if attn_mask.dtype != torch.bool:
        raise ValueError(_not_boolean("attn_mask", attn_mask))
    fits = attn_mask.ndim in (2, 3, 4) and attn_mask.shape[-2] == seq and attn_mask.shape[-1] in (seq, past + seq)
    if not fits or (attn_mask.ndim == 4 and attn_mask.shape[0] not in (1, x.shape[0])):
        keys = f"{seq}" if not past else f"{seq} or {past + seq}"
        wanted = f"({seq}, {keys}), (heads, {seq}, {keys}) or ({x.shape[0]}, heads, {seq}, {keys})"
        raise ValueError(f"attn_mask must be {wanted}, not {tuple(attn_mask.shape)}")


def full_attn_mask(attn_mask: Tensor | None, past: int) -> Tensor | None:
    """(batch or 1, heads or 1, seq, past + seq) bool of an attn_mask of any rank; keys it leaves out are allowed."""
    if attn_mask is None:
        return None
    full = attn_mask[(None,) * (4 - attn_mask.ndim)]
    missing = full.shape[-2] + past - full.shape[-1]
    return F.pad(full, (missing, 0), value=True) if missing else full


class MaskSpec(NamedTuple):
    """What determines a self-attention's mask apart from the tokens: blocks with the same spec share one.

    Attributes:
        causal: no token attends to a later one.
        window: how many earlier tokens a token attends to; None: all.
        mem_kv: number of memory key-values before the tokens.
        kept: how many keys before the queries' a cache keeps; None: all.
        future: how many later tokens a token attends to, if it is not causal; None: all.
    """

    causal: bool
    window: int | None = None
    mem_kv: int = 0
    kept: int | None = None
    future: int | None = None

    @property
    def windowed(self) -> bool:
        """Whether it limits how far a token attends, apart from causality."""
        return self.window is not None or self.future is not None


class Masks:
    """The masks of one forward pass.

    Args:
        queries: tokens of this pass.
        past: earlier tokens that have keys.
        mask: (batch, past + queries) bool, which tokens are real; None: all.
        context_mask: (batch, context) bool; None: all.
        attn_mask: (batch or 1, heads or 1, queries, past + queries) bool, True = attend; None: all.
        device: of the masks.
        place: (1,) int, index of the single query among the keys; None: queries are the last ones.
        documents: of the tokens, where none are in the past: each attends to its own document; None: rows are whole.
        causal: whether no token of the stack sees a later one, for blocks that do not say it themselves.
    """

    def __init__(
        self,
        queries: int,
        past: int = 0,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        device: torch.device | str = "cpu",
        place: Tensor | None = None,
        causal: bool = False,
        documents: Documents | None = None,
    ) -> None:
        self.queries, self.past, self.causal, self.documents = queries, past, causal, documents
        self.mask, self.context_mask, self.attn_mask = mask, context_mask, attn_mask
        self.device, self.place = device, place
        self._known: dict[object, AttentionMask] = {}

    def of_heads(self, first: int, count: int) -> Masks:
        """Those of so many heads, where an attn_mask tells heads apart."""
        if self.attn_mask is None or self.attn_mask.shape[1] == 1:
            return self
        given = (self.queries, self.past, self.mask, self.context_mask, self.attn_mask[:, first : first + count])
        return Masks(*given, self.device, self.place, self.causal, self.documents)

    def tokens(self, spec: MaskSpec, bias: Bias | None = None) -> AttentionMask:
        """Self-attention's mask."""
        key = (spec, bias.nodes if bias is not None else ())
        known = self._known.get(key)
        if known is None:
            values = None if bias is None else bias.values
            known = self._all(spec, values) if spec.kept is None else self._kept_keys(spec, values)
            self._known[key] = known
        return known

    def _all(self, spec: MaskSpec, bias: RelativeBias | None) -> AttentionMask:
        given = (self.mask, self.attn_mask, bias, self.device, self.place, self.documents)
        return AttentionMask(self.queries, self.past, spec, *given)

    def _kept_keys(self, spec: MaskSpec, bias: RelativeBias | None) -> AttentionMask:
        """The mask of the last keys, for a cache that keeps no others."""
        assert spec.kept is not None
        past = min(self.past, spec.kept)
        left_out = self.past - past
        if self.queries == 1 and spec.window == spec.kept:  # the newest token attends to all of them
            spec = spec._replace(window=None)
        mask = None if self.mask is None else self.mask[:, left_out:]
        attn_mask = None if self.attn_mask is None else self.attn_mask[..., left_out:]
        bias = None if bias is None else bias.after(left_out)
        return AttentionMask(self.queries, past, spec, mask, attn_mask, bias, self.device)

    def context(self, mem_kv: int = 0) -> AttentionMask:
        """Cross-attention's mask: only context_mask masks the context."""
        key = ("context", mem_kv)
        if key not in self._known:
            self._known[key] = AttentionMask(self.queries, 0, MaskSpec(False, None, mem_kv), self.context_mask)
        return self._known[key]


class AttentionMask:
    """Which keys each query attends to, and position biases: whole, or tile by tile.

    Args:
        queries: tokens of this pass.
        past: earlier tokens that have keys.
        spec: determines it apart from the tokens; None: attend to all.
        mask: (batch, tokens) bool of the keys after memory key-values; None: all are real.
        attn_mask: (batch or 1, heads or 1, queries, tokens) bool; None: all.
        bias: for tokens; None: no bias.
        device: of the masks.
        place: (1,) int, index of the single query among the tokens; None: queries are the last ones.
        documents: of the tokens, where none are in the past; None: rows are whole.

    Attributes:
        all: every query attends to every key, without a bias.
        is_causal: causal and nothing else, for which fused kernels need no mask.
        window, future: how many earlier and later tokens a query attends to; None: all.
        windowed: either is limited.
    """

    def __init__(
        self,
        queries: int = 0,
        past: int = 0,
        spec: MaskSpec | None = None,
        mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        bias: RelativeBias | None = None,
        device: torch.device | str = "cpu",
        place: Tensor | None = None,
        documents: Documents | None = None,
    ) -> None:
        spec = spec or MaskSpec(causal=False)
        self.queries, self.past = queries, past
        self.causal = spec.causal and queries > 1  # a single query is the newest token
        self.window, self.future, self.mem_kv, self.windowed = spec.window, spec.future, spec.mem_kv, spec.windowed
        self.mask, self.attn_mask, self.bias = mask, attn_mask, bias
        self.device, self.place = device, place
        self.documents = documents if queries > 1 else None
        given = mask is not None or attn_mask is not None or bias is not None or self.windowed
        given = given or self.documents is not None
        self.all = not (self.causal or given)
        self.is_causal = self.causal and not (given or past or self.mem_kv)
        self.flex_blocks: Any = None  # its form in FlexAttention, made on demand
        self.tables: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}  # of `single_query`, with the same lifetime
        self._whole: tuple[Tensor | None, Tensor | None] | None = None
        self._added: dict[torch.dtype, Tensor] = {}
        self._hidden: dict[torch.dtype, Tensor] = {}

    # Whole -------------------------------------------------------------------------------------------------------

    @property
    def allowed(self) -> Tensor | None:
        """(batch or 1, heads or 1, queries or 1, keys) bool; None: all. Fully masked rows are open."""
        return self._resolved()[0]

    @property
    def empty(self) -> Tensor | None:
        """(batch or 1, heads or 1, queries or 1, 1) bool, the fully masked rows; None: none."""
        return self._resolved()[1]

    def added(self, dtype: torch.dtype) -> Tensor | None:
        """Bias and mask as one tensor to add to scores of this dtype; without a bias, the boolean mask.

        Made once, for the first block. As in `RelativeBias`, no tensor is saved for the backward pass.
        """
        if self.bias is None:
            return self.allowed
        if dtype not in self._added:
            bias, hidden = self.whole_bias(dtype), self.hidden(dtype)
            assert bias is not None
            self._added[dtype] = bias if hidden is None else bias + hidden
        return self._added[dtype]

    def hidden(self, dtype: torch.dtype) -> Tensor | None:
        """0 where `allowed`, else -inf, to be added: masked_fill would save its mask for the backward pass."""
        if self.allowed is None:
            return None
        if dtype not in self._hidden:
            self._hidden[dtype] = torch.zeros_like(self.allowed, dtype=dtype).masked_fill_(~self.allowed, float("-inf"))
        return self._hidden[dtype]

    def whole_bias(self, dtype: torch.dtype) -> Tensor | None:
        """(batch or 1, heads, queries, keys): the bias in this dtype, clamped so as not to overflow; None: none.

        A row whose bias is -inf throughout has no softmax.
        """
        if self.bias is None:
            return None
        whole = F.pad(self.bias.whole(), (self.mem_kv, 0))
        if dtype != torch.float16:
            return whole.to(dtype)
        values = whole.detach()
        return (whole + (values.clamp(min=torch.finfo(dtype).min / 2) - values)).to(dtype)

    # Tile by tile ------------------------------------------------------------------------------------------------

    def key_range(self, row: int, queries: slice, tokens: int) -> slice:
        """The range of keys, out of `tokens`, that any of these queries of a row of the batch attends to."""
        ahead = 0 if self.causal else self.future
        last = tokens if ahead is None else min(tokens, self.past + queries.stop + ahead)
        first = 0 if self.window is None else max(0, self.past + queries.start - self.window)
        if self.documents is not None:
            starts, ends = self._ends[row]
            first, last = max(first, starts[queries.start]), min(last, ends[queries.stop - 1])
        return slice(first, last)

    @cached_property
    def _ends(self) -> list[tuple[list[int], list[int]]]:
        """Where each token's document starts and ends, by row."""
        assert self.documents is not None
        return [*zip(self.documents.starts.tolist(), self.documents.ends.tolist(), strict=True)]

    def hide(self, scores: Tensor, row: int, heads: slice, queries: slice, tokens: slice) -> bool:
        """Set masked scores to -inf, in place.

        Args:
            scores: (heads, queries, tokens) of a row of the batch.

        Returns:
            whether a query may be fully masked; causality and windows alone leave each its own key.
        """
        start, rows = self.past + queries.start - tokens.start, queries.stop - queries.start
        edge = torch.ones(rows, rows - 1, dtype=torch.bool, device=scores.device)
        if self.causal:
            _hide(scores[:, :, start + 1 :], edge.triu())
        if self.future is not None and (near := start + self.future + 1) < scores.shape[2]:
            _hide(scores[:, :, near:], edge[:, : scores.shape[2] - near].triu())
        if self.window is not None and (far := start - self.window + rows - 1) > 0:
            _hide(scores[:, :, :far], edge[:, :far].tril(start - self.window - 1))
        if self.documents is not None:
            self._hide_documents(scores, row, queries, tokens)
        mask = None if self.mask is None else self.mask[row, tokens]
        if mask is not None and not (whole := bool(mask.all())):
            _hide(scores, ~mask)
        if self.attn_mask is not None:
            attn_mask = self.attn_mask[row if self.attn_mask.shape[0] > 1 else 0]
            attn_mask = attn_mask if attn_mask.shape[0] == 1 else attn_mask[heads]
            _hide(scores, ~attn_mask[:, queries, tokens])
        return not self.mem_kv and (self.attn_mask is not None or not (mask is None or whole))

    def _hide_documents(self, scores: Tensor, row: int, queries: slice, tokens: slice) -> None:
        starts, ends = self._ends[row]
        documents = self.documents
        places = torch.arange(tokens.start, tokens.stop, device=scores.device, dtype=torch.int64)
        assert documents is not None
        if starts[queries.stop - 1] > tokens.start:
            _hide(scores, places < documents.starts[row, queries, None])
        if not self.causal and ends[queries.start] < tokens.stop:
            _hide(scores, places >= documents.ends[row, queries, None])

    def _resolved(self) -> tuple[Tensor | None, Tensor | None]:
        if self._whole is None:
            mask = None if self.mask is None else self.mask[:, None, None, :]
            given = _both(mask, self.attn_mask)
            allowed = _both(self._places(), given)
            if allowed is not None and self.mem_kv:
                allowed = F.pad(allowed, (self.mem_kv, 0), value=True)
            if allowed is None or given is None or self.mem_kv:  # each token attends to itself or to memory key-values
                self._whole = allowed, None
            else:
                empty = ~allowed.any(dim=-1, keepdim=True)
                self._whole = allowed | empty, empty
        return self._whole

    def _places(self) -> Tensor | None:
        """(batch or 1, 1, queries, tokens) bool from causality, window and documents; None: all."""
        shape = self.queries, self.past + self.queries
        places = None
        if self.causal:
            places = torch.ones(shape, dtype=torch.bool, device=self.device).tril(self.past)
        if self.window is not None and self.place is not None:
            near = torch.arange(shape[1], device=self.device, dtype=torch.int64)[None] >= self.place - self.window
            places = _both(places, near)
        elif self.window is not None:
            near = torch.ones(shape, dtype=torch.bool, device=self.device).triu(self.past - self.window)
            places = _both(places, near)
        if self.future is not None:
            near = torch.ones(shape, dtype=torch.bool, device=self.device).tril(self.past + self.future)
            places = _both(places, near)
        places = None if places is None else places[None, None]
        if self.documents is not None:
            starts = self.documents.starts
            places = _both(places, (starts[:, :, None] == starts[:, None, :])[:, None])
        return places


def _both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return one if other is None else other
    return one & other


def _hide(scores: Tensor, hidden: Tensor) -> None:
    scores.masked_fill_(hidden, float("-inf"))
