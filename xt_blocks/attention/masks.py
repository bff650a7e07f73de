"""Which query sees which key: every mask of a forward pass, resolved once.

Owns the reading of masks (boolean, True = attend). The kernel gets an `Attend` and asks nothing more. A row
that sees nothing is opened so that its softmax is finite, and its output is set to zero: what was masked leaves
no trace in it.

Keys stand in this order: learned memories, which everyone sees and no position reaches; tokens of the past; the
tokens of this call.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Attend:
    """A resolved mask, and what positions add to the scores.

    Attributes:
        allowed: (batch or 1, heads or 1, queries or 1, keys) bool, True = attend; None: everything, or what `causal`
            says.
        causal: the plain triangle, which a fused kernel needs no mask for.
        empty: (batch or 1, heads or 1, queries or 1, 1) bool, the rows that see nothing; None: there is none.
        bias: (batch or 1, heads, queries, keys) added to the scores; None: nothing is.
    """

    allowed: Tensor | None = None
    causal: bool = False
    empty: Tensor | None = None
    bias: Tensor | None = None
    _added: dict[torch.dtype, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def everywhere(self, scores: Tensor) -> Tensor | None:
        """`allowed`, the plain triangle written out, for `scores: (..., queries, keys)`."""
        if self.allowed is not None or not self.causal:
            return self.allowed
        return torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()

    def added(self, dtype: torch.dtype) -> Tensor | None:
        """Bias and mask as one tensor to add to scores of this type; the mask alone where nothing biases.

        It is made once, by the first block that asks. No step keeps a tensor for the backward pass: a checkpointed
        block that runs again finds it made, and must keep as many tensors as the first time.
        """
        if self.bias is None:
            return self.allowed
        if dtype not in self._added:
            bias, allowed = self.bias_in(dtype), self.everywhere(self.bias)
            if allowed is not None:  # added: `masked_fill` would keep the mask for the backward pass
                bias = bias + torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, float("-inf"))
            self._added[dtype] = bias
        return self._added[dtype]

    def bias_in(self, dtype: torch.dtype) -> Tensor:
        """The bias in another type, not to overflow in it: a row whose bias is -inf throughout has no softmax."""
        assert self.bias is not None
        if dtype != torch.float16:
            return self.bias.to(dtype)
        bias = self.bias.detach()
        return (self.bias + (bias.clamp(min=torch.finfo(dtype).min / 2) - bias)).to(dtype)


class Bias(NamedTuple):
    """What positions add to the scores of the blocks that read them.

    Attributes:
        nodes: the position nodes it is from, by which a forward pass knows it.
        values: (batch or 1, heads, queries, keys)
    """

    nodes: tuple[str, ...]
    values: Tensor


def check_mask(name: str, mask: Tensor | None, of: Tensor | None) -> None:
    """Raise ValueError unless `mask` is boolean and (batch, seq) of `of: (batch, seq, ...)`."""
    if mask is None or of is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        what = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"{name} must be boolean, True = attend, not {what}")
    if mask.shape != of.shape[:2]:
        raise ValueError(f"{name} must be {tuple(of.shape[:2])}, not {tuple(mask.shape)}")


def check_pairs(attn_mask: Tensor, x: Tensor, past: int) -> None:
    """Raise ValueError unless `attn_mask` is boolean and of pairs of tokens of `x: (batch, seq, dim)`."""
    seq = x.shape[1]
    if attn_mask.dtype != torch.bool:
        raise ValueError(f"attn_mask must be boolean, True = attend, not {attn_mask.dtype}")
    fits = attn_mask.ndim in (2, 3, 4) and attn_mask.shape[-2] == seq and attn_mask.shape[-1] in (seq, past + seq)
    if not fits or (attn_mask.ndim == 4 and attn_mask.shape[0] not in (1, x.shape[0])):
        keys = f"{seq}" if not past else f"{seq} or {past + seq}"
        wanted = f"({seq}, {keys}), (heads, {seq}, {keys}) or ({x.shape[0]}, heads, {seq}, {keys})"
        raise ValueError(f"attn_mask must be {wanted}, not {tuple(attn_mask.shape)}")


def pairs_of(attn_mask: Tensor | None, past: int) -> Tensor | None:
    """(batch or 1, heads or 1, seq, past + seq) bool of an attn_mask of any rank; what it leaves out is seen."""
    if attn_mask is None:
        return None
    pairs = attn_mask[(None,) * (4 - attn_mask.ndim)]
    missing = pairs.shape[-2] + past - pairs.shape[-1]
    return F.pad(pairs, (missing, 0), value=True) if missing else pairs


class Sight(NamedTuple):
    """What decides a self-attention's mask, apart from the tokens: blocks alike in it share one.

    Attributes:
        causal: no token sees a later one.
        reach: how far back a token sees; None: to the start.
        memories: learned keys in front of the tokens'.
        window: how many keys before the queries' own there are; None: all, of a cache that keeps no less.
    """

    causal: bool
    reach: int | None = None
    memories: int = 0
    window: int | None = None


class Masks:
    """The masks of one forward pass.

    Args:
        queries: tokens in this call.
        past: tokens before them whose keys there are.
        mask: (batch, past + queries) bool, which tokens are real; None: all.
        context_mask: (batch, context) bool; None: all.
        pairs: (batch or 1, heads or 1, queries, past + queries) bool, which query may see which key; None: all.
        device: where the masks are made.
        place: (1,) int, among the keys, of the one query there is; None: queries are the last of them.
    """

    def __init__(
        self,
        queries: int,
        past: int = 0,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        pairs: Tensor | None = None,
        device: torch.device | str = "cpu",
        place: Tensor | None = None,
    ) -> None:
        self.queries, self.past = queries, past
        self.mask, self.context_mask, self.pairs = mask, context_mask, pairs
        self.device, self.place = device, place
        self._known: dict[object, Attend] = {}

    def tokens(self, sight: Sight, bias: Bias | None = None) -> Attend:
        """Self-attention's mask."""
        key = (sight, bias.nodes if bias is not None else ())
        if key not in self._known:
            self._known[key] = self._tokens(sight) if bias is None else self._biased(sight, bias.values)
        return self._known[key]

    def context(self, memories: int = 0) -> Attend:
        """Cross-attention's mask: only the context's own hides any of the context."""
        key = ("context", memories)
        if key not in self._known:
            hidden = None if self.context_mask is None else self.context_mask[:, None, None, :]
            self._known[key] = _resolved(hidden, memories)
        return self._known[key]

    def _biased(self, sight: Sight, bias: Tensor) -> Attend:
        return replace(self.tokens(sight), bias=F.pad(self._kept(bias, sight), (sight.memories, 0)), _added={})

    def _kept(self, x: Tensor, sight: Sight) -> Tensor:
        """`x: (..., past + queries or 1)` of the keys that there are."""
        if sight.window is None or x.shape[-1] == 1:
            return x
        return x[..., max(0, self.past - sight.window) :]

    def _tokens(self, sight: Sight) -> Attend:
        # one query is the newest token and sees all before it
        causal = sight.causal and self.queries > 1
        reach = sight.reach
        if self.queries == 1 and reach is not None and reach == sight.window:
            reach = None
        whole = self.mask is None and self.pairs is None and self.past == 0
        if causal and whole and reach is None and not sight.memories:
            return Attend(causal=True)
        mask = None if self.mask is None else self.mask[:, None, None, :]
        allowed = _both(_both(mask, self._places(causal, reach)), self.pairs)
        return _resolved(None if allowed is None else self._kept(allowed, sight), sight.memories)

    def _places(self, causal: bool, reach: int | None) -> Tensor | None:
        """(1, 1, queries, past + queries) bool by place alone, or (past + queries,) of one query; None: all."""
        keys = self.past + self.queries
        places = None
        if self.place is not None:
            return None if reach is None else torch.arange(keys, device=self.device) >= self.place - reach
        if causal:
            places = torch.ones(self.queries, keys, dtype=torch.bool, device=self.device).tril(self.past)
        if reach is not None:
            near = torch.ones(self.queries, keys, dtype=torch.bool, device=self.device).triu(self.past - reach)
            places = _both(places, near)
        return None if places is None else places[None, None]


def _both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return one if other is None else other
    return one & other


def _resolved(allowed: Tensor | None, memories: int) -> Attend:
    """What is `allowed: (batch or 1, heads or 1, queries or 1, keys)`, behind memories that all see."""
    if allowed is None:
        return Attend()
    if memories:
        return Attend(F.pad(allowed, (memories, 0), value=True))
    empty = ~allowed.any(dim=-1, keepdim=True)
    return Attend(allowed | empty, empty=empty)
