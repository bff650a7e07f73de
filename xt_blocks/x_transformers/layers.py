"""Attention and feedforward as layers of their own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import attention, feedforward
from ..blocks.linear import apply, apply_from
from ..kernels import table
from ..kernels.activations import ACTIVATIONS
from ..kernels.masks import AttentionMask, Masks, MaskSpec, check_mask
from ..kernels.request import Request, Scores
from ..kernels.scores.dropout import WeightDropout
from ..kernels.scores.spec import ScoreSpec
from .keywords import layer_keywords_of
from .modules import apply_rotary_pos_emb


class Attention(attention.Attention):
    """Attention of a sequence to itself, or with the same weights to a context.

    Args:
        dim: features.
        options: those of the block kind `a`, and 2.x's spellings of them.

    Raises:
        TypeError: an unknown option, or one of 2.x that is not here.
    """

    def __init__(self, dim: int, dim_head: int = 64, heads: int = 8, **options: Any) -> None:
        given = layer_keywords_of("Attention", "attn_", {"dim_head": dim_head, "heads": heads, **options})
        super().__init__(dim, **given)

    @property
    def causal(self) -> bool:
        """Whether no token sees a later one."""
        return self.mask_spec.causal

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        *,
        return_intermediates: bool = False,
        rotary_pos_emb: tuple[Tensor, Tensor | float] | None = None,
        prev_attn: Tensor | None = None,
        mem: Tensor | None = None,
        mem_mask: Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        """
        Args:
            x: (batch, seq, dim)
            context: (batch, context, dim) for keys and values; None: x itself. With `causal`, the last query sees all
                of it, the one before all but the last, and so on.
            mask: (batch, seq) bool; masked tokens of x are not attended to, and their output is zero.
            context_mask: (batch, context) bool; without a context, it is of x.
            attn_mask: (seq, keys), (heads, seq, keys) or (batch, heads, seq, keys) bool.
            return_intermediates: return the Scores too.
            rotary_pos_emb: angles of `RotaryEmbedding`, and xPos's factors.
            prev_attn: (batch, heads, seq, keys), scores of an earlier layer, with `residual_attn`.
            mem: (batch, tokens, dim), earlier tokens; mem_mask: (batch, tokens) bool.
            inputs: those that a stack gives to `xt_blocks.Attention`.

        Returns:
            (batch, seq, dim); with return_intermediates also the Scores, each (batch, heads, seq, keys).

        Raises:
            ValueError: a mask has another shape, or a causal layer has more queries than keys.
        """
        if inputs.keys() & {"attend", "rotary", "cache", "scores", "keep_scores"}:  # from a stack
            return super().forward(x, mask, **inputs)
        if inputs:
            raise TypeError(f"forward() got an unknown argument '{next(iter(inputs))}'")
        source = x if context is None else context
        check_mask("mask", mask, x)
        check_mask("context_mask", context_mask, source)
        seen = context_mask if context is not None or context_mask is not None else mask
        q = apply(self.to_qkv, x)[..., : self.sizes[0]]
        tokens = source if mem is None else torch.cat((mem, source), dim=1)
        if mem is not None and (seen is not None or mem_mask is not None):
            parts = ((mem_mask, mem), (seen, source))
            masks = [t.new_ones(t.shape[:2], dtype=torch.bool) if m is None else m for m, t in parts]
            seen = torch.cat(masks, dim=1)
        kv = apply_from(self.to_qkv, tokens, self.sizes[0])
        values = kv[..., self.sizes[1] :] if self.sizes[2] else None
        q, k, v = self.split(q, kv[..., : self.sizes[1]], values)
        if rotary_pos_emb is not None:
            q, k = _rotated(q, k, *rotary_pos_emb)
        past = tokens.shape[1] - x.shape[1]
        if past < 0 and (self.mask_spec.causal or self.mask_spec.windowed):
            raise ValueError(f"a causal layer needs a key for each query: {x.shape[1]} queries, {tokens.shape[1]} keys")
        allowed = None if attn_mask is None else attn_mask[(None,) * (4 - attn_mask.ndim)]
        if allowed is not None and allowed.shape[-1] < tokens.shape[1]:
            allowed = F.pad(allowed, (tokens.shape[1] - allowed.shape[-1], 0), value=True)
        if past < 0:
            given = AttentionMask(x.shape[1], 0, MaskSpec(False, None, self.mask_spec.mem_kv), seen, allowed)
        else:
            given = Masks(x.shape[1], past, seen, None, allowed, x.device).tokens(self.mask_spec)
        k, v = self.with_memory(k, v)
        out = self.attend(x, q, k, v, given, prev_attn, return_intermediates)
        update, scores = out if isinstance(out, tuple) else (out, None)
        if mask is not None:
            update = update.masked_fill(~mask[..., None], 0.0)
        return (update, scores) if return_intermediates else update


def _rotated(q: Tensor, k: Tensor, angles: Tensor, factor: Tensor | float) -> tuple[Tensor, Tensor]:
    return apply_rotary_pos_emb(q, angles, factor), apply_rotary_pos_emb(k, angles, 1 / factor)


class FeedForward(feedforward.FeedForward):
    """`xt_blocks.FeedForward`, with x-transformers' keywords.

    Args:
        dim: features.
        dim_out: features of the output, by default `dim`.
        mult: features in between, as a multiple.
        options: the other options of the block kind `f`.

    Raises:
        TypeError: an unknown option, or one of 2.x that is not here.
    """

    def __init__(self, dim: int, dim_out: int | None = None, mult: float = 4, **options: Any) -> None:
        super().__init__(dim, **layer_keywords_of("FeedForward", "ff_", {"mult": mult, **options}))
        if dim_out not in (None, dim):
            last = self.to_out
            self.to_out = nn.Linear(last.in_features, dim_out, bias=last.bias is not None)
            for parameter in self.to_out.parameters() if self.zero_init else ():
                nn.init.zeros_(parameter)

    @property
    def ff(self) -> nn.Sequential:
        """The steps: linear layer and activation, norm if there is one, dropout, linear layer; more can be appended."""
        return _Steps(self)

    def forward(self, x: Tensor, deep_embed: None = None, *, use: int = 0) -> Tensor:
        """`x: (batch, seq, dim)` → (batch, seq, dim)."""
        if deep_embed is not None:
            raise TypeError("deep_embed, an option of x-transformers 2.x, is not here")
        return super().forward(x, use=use)


class _Steps(nn.Sequential):
    """The steps of a feedforward; what replaces its dropout or last layer, or is appended, is put into it."""

    def __init__(self, owner: FeedForward) -> None:
        first = _Gated(owner) if owner.glu else nn.Sequential(owner.to_hidden, _Activation(owner.activation))
        steps = [first, owner.norm, owner.dropout, owner.to_out]
        super().__init__(*(step for step in steps if step is not None))
        object.__setattr__(self, "_owner", owner)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.isdigit():
            return super().__setattr__(name, value)
        place = int(name) - len(self)
        if place not in (-1, -2):
            raise TypeError(f"ff[{name}] is to_hidden and what follows it: replace these of the FeedForward")
        setattr(self._owner, "to_out" if place == -1 else "dropout", value)
        return super().__setattr__(name, value)

    def append(self, module: nn.Module) -> _Steps:
        """A further step, after the last layer."""
        self[-1] = nn.Sequential(self[-1], module)
        return self

    def _fixed(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("the steps of a FeedForward can be replaced or appended to, not removed")

    insert = extend = pop = __delitem__ = __iadd__ = _fixed


class _Gated(nn.Module):
    """The first step of a gated feedforward, under the names of `modules.GLU`."""

    def __init__(self, owner: FeedForward) -> None:
        super().__init__()
        self.proj, self.act, self.gate_first = owner.to_hidden, _Activation(owner.activation), owner.gate_first

    def forward(self, x: Tensor) -> Tensor:
        """`x: (..., dim)` → (..., hidden features)."""
        values, gate = self.proj(x).chunk(2, dim=-1)
        return gate * self.act(values) if self.gate_first else values * self.act(gate)


class _Activation(nn.Module):
    """An activation by its name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """`x: (...)` → (...)."""
        return ACTIVATIONS[self.name](x)


def as_theirs(layer: nn.Module) -> None:
    """Give a layer of a stack the class it has here, with what clients call and read; its parameters stay."""
    for plain, named in ((attention.Attention, Attention), (feedforward.FeedForward, FeedForward)):
        if type(layer) is plain:
            layer.__class__ = named


class Attend(nn.Module):
    """softmax(q kᵀ · scale) v by the fastest kernel.

    Args:
        dropout: of the weights, in training.
        causal: no query sees a later key.
        scale: of the scores; None: one over the root of the features of a head.
        flash: whether fused kernels may be taken.
        heads: not needed.
    """

    def __init__(
        self,
        *,
        dropout: float = 0.0,
        causal: bool = False,
        scale: float | None = None,
        flash: bool = False,
        heads: int | None = None,
    ) -> None:
        super().__init__()
        self.causal, self.scale, self.flash, self.heads = causal, scale, flash, heads
        self.attn_dropout = WeightDropout(SimpleNamespace(dropout=dropout))

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        attn_bias: Tensor | None = None,
        prev_attn: Tensor | None = None,
    ) -> tuple[Tensor, Scores | None]:
        """
        Args:
            q: (batch, heads, seq, d); k, v: (batch, heads, keys, d), or (batch, keys, d) for all heads.
            mask: (batch, keys) bool, or of rank 4, to broadcast to (batch, heads, seq, keys).
            attn_bias, prev_attn: to add to the scores: (batch or 1, heads, seq, keys), or without the first axis.

        Returns:
            (batch, heads, seq, d), and the Scores; None from a fused kernel.
        """
        heads, seq, keys = q.shape[1], q.shape[2], k.shape[-2]
        k, v = (t[:, None].expand(-1, heads, -1, -1) if t.ndim == 3 else t for t in (k, v))
        real = mask if mask is not None and mask.ndim == 2 else None
        allowed = mask if mask is not None and mask.ndim == 4 else None
        given = AttentionMask(seq, keys - seq, MaskSpec(self.causal), real, allowed, device=q.device)
        added = [t for t in (attn_bias, prev_attn) if t is not None]
        residual = sum(added[1:], added[0]).expand(q.shape[0], heads, seq, keys) if added else None
        scale = q.shape[-1] ** -0.5 if self.scale is None else self.scale
        spec = ScoreSpec(scale, tuple(self.attn_dropout()), residual)
        return table.attention(Request(q, k, v, given, spec, self.flash, not self.flash))
