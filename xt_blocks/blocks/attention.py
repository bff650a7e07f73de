"""Self-attention and cross-attention: project, norm, rotate, cache, attend, project back.

Owns the order of these steps, not the steps. The options, their ranges, defaults and sources are declared with the
kinds `a` and `c` in `blockdsl.registry.builtin`.
Axes: b batch, n tokens, m sources, h heads, g key-value heads, d features of a head.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.registry.builtin.attention import SELF_ATTENTION
from blockdsl.registry.builtin.cross_attention import CROSS_ATTENTION
from blockdsl.registry.keywords import parameters, spells
from blockdsl.registry.kinds import Kind
from blockdsl.registry.options import by_name

from ..kernels import table
from ..kernels.masks import AttentionMask, Bias, Masks, MaskSpec, check_mask
from ..kernels.request import Request, Result, Scores
from ..kernels.scores.spec import Modifier, ScoreSpec
from ..kernels.tensors import check_tensor
from ..positions.rotary import Rotation
from .aliases import old_names
from .forget import forget_gate, log_gates, with_forgetting
from .init import xavier
from .l2_distance import distance_features
from .laser import exponentials, logarithms
from .latent import Latent
from .layer_output import LayerOutput
from .linear import apply, apply_from
from .linear_rows import LinearParts, LinearRows
from .lora import LowRank
from .mem_kv import MemoryKeyValues
from .output import Output
from .project import GainedQKNorm, QKNorm, init_parts, projection, split_heads, value_norm
from .state import LayerState, in_type_of
from .subset import without_share

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from blockdsl.signatures import CrossAttentionOptions, SelfAttentionOptions


class KeysValues(NamedTuple):
    """Keys and values that a block gives to later ones.

    Attributes:
        keys, values: (b, g, m, d) and (b, g, m, dv), as the block attends to them: of all tokens that a cache keeps,
            rotated, memory key-values in front.
        new: (b, g, n, dv), values of the tokens of this pass, with those of earlier segments; None: `values` are these.
        kept: how many tokens before those of the pass the cache keeps; None: all.
        gates: (b, m, h), the logarithms of forget gates of the tokens whose keys these are; None: there are none.
    """

    keys: Tensor
    values: Tensor
    new: Tensor | None
    kept: int | None
    gates: Tensor | None = None

    @property
    def alone(self) -> Tensor:
        """(b, g, n, dv), values of the tokens of this pass, with those of earlier segments."""
        return self.values if self.new is None else self.new


class AnyAttention(nn.Module):
    """What self- and cross-attention share: all but the sources of queries, keys and values.

    Attributes:
        core: computes a Request. `xt_blocks.why` replaces it to see a module's requests.
        joint: the name of the linear layer whose last outputs are the keys and values.
        to_q, to_k, to_v, to_out: parts under the names they have as layers of their own in x-transformers, to be read
            or replaced by other modules.
    """

    core: Callable[[Request], Result] = staticmethod(table.attention)
    joint: str

    def __init__(self, kind: Kind, dim: int, options: Mapping[str, Any], uses: int = 1) -> None:
        super().__init__()
        o = kind.complete(dim, options, f"{type(self).__name__}()", uses)
        self.options = o
        self.heads, self.kv_heads = o.heads, o.kv_heads
        self.sizes = o.heads * o.dim_head, o.kv_heads * o.dim_head, 0 if o.shared_kv else o.kv_heads * o.value_dim_head
        if not (own_keys := not getattr(o, "kv", False)):
            self.sizes = self.sizes[0], 0, 0
        self.scale = float(o.qk_norm_scale if o.qk_norm else o.dim_head**-0.5 if o.qk_scale is None else o.qk_scale)
        self.biases = o.qkv_bias, o.qkv_bias and o.k_bias, o.qkv_bias
        gained = o.qk_rmsnorm or o.k_rmsnorm or o.qk_layernorm
        self.qk_norm = QKNorm(o, own_keys) if o.qk_norm else GainedQKNorm(o, own_keys) if gained else None
        self.value_norm = value_norm(o) if o.value_rmsnorm and own_keys else None
        self.mem_kv = MemoryKeyValues(o) if o.num_mem_kv and own_keys else None
        old_names(self, {"memory.": "mem_kv."})
        self.score_options: tuple[str, ...] = ()
        for option in (option for option in kind.options if option.scores):
            on = getattr(o, option.name) != option.default
            setattr(self, option.name, pkgutil.resolve_name(option.scores)(o) if on else None)
            self.score_options += (option.name,) if on else ()
        self.output = Output(o)

    @property
    def to_k(self) -> nn.Module:
        """The rows of the joint linear layer that make keys."""
        return self._part("to_k")

    @property
    def to_v(self) -> nn.Module | None:
        """The rows that make values; None: keys are the values."""
        return self._part("to_v") if self.sizes[2] else None

    @property
    def to_out(self) -> nn.Module:
        """The linear layer of the output."""
        return self.output.to_out

    def _rows(self) -> dict[str, slice]:
        """The outputs of the joint linear layer by the part that makes them; none are keys or values if latent."""
        rows: dict[str, slice] = {}
        if getattr(self, "latent", None) is not None:
            return rows
        start = 0
        for name, size in zip(("to_q", "to_k", "to_v"), self.sizes, strict=True):
            if size and (name != "to_q" or self.joint == "to_qkv"):
                rows[name] = slice(start, start + size)
                start += size
        return rows

    def _part(self, name: str) -> nn.Module:
        joint, rows = getattr(self, self.joint), self._rows()
        if name not in rows:
            raise AttributeError(f"{name} is not a part of {self.joint}")
        return joint.parts[[*rows].index(name)] if isinstance(joint, LinearParts) else LinearRows(joint, rows[name])

    def __setattr__(self, name: str, value: Any) -> None:
        own = getattr(type(self), name, None)
        if isinstance(value, nn.Module) and callable(own) and name != "core":
            raise AttributeError(f"{name} is a method here: nothing would call a module in its place")
        if not isinstance(own, property):
            super().__setattr__(name, value)
        elif name == "to_out":
            self.output.to_out = value
        else:
            self._replace_part(name, value)

    def _replace_part(self, name: str, part: nn.Module) -> None:
        joint, rows = getattr(self, self.joint), self._rows()
        if name not in rows or not isinstance(joint, nn.Linear | LinearParts):
            raise AttributeError(f"{name} is not a part of {self.joint} that can be replaced; replace {self.joint}")
        parts = (
            joint
            if isinstance(joint, LinearParts)
            else LinearParts(LinearRows(joint, own).linear() for own in rows.values())
        )
        parts.replace([*rows].index(name), part)
        setattr(self, self.joint, parts)

    def modifiers(self) -> tuple[Modifier, ...]:
        """The score modifiers of the options; those with parameters come from their modules."""
        own = [getattr(self, name) for name in self.score_options]
        return tuple(one for part in own for one in (part() if isinstance(part, nn.Module) else (part,)))

    def split(self, q: Tensor, k: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """(b, n, h·d) and (b, m, g·d) to heads, with qk_norm if it is on; without values, keys are the values."""
        q, k = split_heads(q, self.heads), split_heads(k, self.kv_heads)
        return *self.normed(q, k), self.normed_values(k if v is None else split_heads(v, self.kv_heads))

    def normed(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """`q: (b, h, n, d)`, `k: (b, g, m, d)` with qk_norm, if it is on."""
        if self.qk_norm is None:
            return q, k
        return self.qk_norm(q, keys=False), self.qk_norm(k, keys=True)

    def with_memory(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """`k: (b, g, m, d)`, `v: (b, g, m, dv)` with memory key-values in front, if there are any."""
        if self.mem_kv is None:
            return k, v
        return self.mem_kv(k, v, None if self.qk_norm is None else partial(self.qk_norm, keys=True))

    def normed_values(self, v: Tensor) -> Tensor:
        """`v: (b, g, m, dv)` with value_rmsnorm, if it is on."""
        return v if self.value_norm is None else self.value_norm(v)

    def attend(
        self,
        x: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: AttentionMask,
        scores: Tensor | None,
        keep_scores: bool,
        values_of: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Scores]:
        """From `q: (b, h, n, d)`, `k: (b, g, m, d)`, `v: (b, g, m, dv)` to the update (b, n, dim).

        Args:
            values_of: what makes values of the weighted sums of v, where v is something else.
        """
        if scores is not None and not (self.options.residual_attn or self.options.scores):
            raise ValueError("scores are given, but residual_attn is false")
        o = self.options
        if o.l2_distance:
            q, k = distance_features(q, k)
        if o.laser:
            q, k, v, dtype = *exponentials(q, k, v, o.laser_softcap), v.dtype
        spec = ScoreSpec(self.scale, self.modifiers() if self.score_options else (), scores)
        values = v if v.dtype == q.dtype else v.to(q.dtype)  # asking first is cheaper
        out, seen = self.core(Request(q, k, values, mask, spec, o.flash, keep_scores))
        out = out if out.dtype == v.dtype else out.to(v.dtype)
        out = logarithms(out).to(dtype) if o.laser else out
        update: Tensor = self.output(out if values_of is None else values_of(out), x)
        return update if seen is None else (update, seen)


class Attention(AnyAttention):
    """Multi-head self-attention (Vaswani et al., arXiv:1706.03762), by the fastest kernel that has its options.

    Args:
        dim: features of the stream; with the option `concat` x has twice as many.
        uses: how many blocks share it, each with a low-rank term of its own, with `lora_rank`.
        options: of the block kind `a`: heads, dim_head, causal, dropout, kv_heads, qk_norm, ...

    Raises:
        TypeError: an unknown option; the message names the nearest one.
        ValueError: a value out of range, or options that clash.
    """

    joint = "to_qkv"

    @spells(parameters(by_name(SELF_ATTENTION.options)))
    def __init__(self, dim: int, *, uses: int = 1, **options: Unpack[SelfAttentionOptions]) -> None:
        super().__init__(SELF_ATTENTION, dim, options, uses)
        dim, rank = self.options.dim_in, self.options.lora_rank
        self.latent = None if self.options.kv_rank is None else Latent(self.options)
        if self.latent is not None:
            self.sizes = self.latent.sizes
        self.to_qkv = projection(dim, self.sizes, self.biases)
        self.lora = None if rank is None else LowRank(dim, self.sizes, rank, uses)
        self.forget_gate = forget_gate(dim, self.heads) if self.options.forget_gate else None
        self.to_value_mix = nn.Linear(dim, self.kv_heads) if self.options.value_mix == "learned" else None
        gains = self.options.value_mix == "gains"
        self.value_gains = nn.Parameter(torch.full((2,), 0.5)) if gains else None  # of its own, of the others
        # one split is enough where all heads have the same size
        alike = self.latent is None and self.sizes[1] == self.sizes[2]
        self.parts = (self.heads, self.kv_heads, self.kv_heads) if alike else None
        o = self.options
        self.mask_spec = MaskSpec(o.causal, o.max_attend_past, o.num_mem_kv, future=o.max_attend_future)

    @property
    def to_q(self) -> nn.Module:
        """The rows that make queries."""
        return self._part("to_q")

    def init_xavier(self, gain: float) -> None:
        """Xavier normal weights, with this gain for values and the output; shared keys and values count as values."""
        self.output.init_xavier(gain)
        values = self.latent is None and not self.options.kv
        init_parts(self.to_qkv, self.sizes, gain if values else 1.0)
        if self.forget_gate is not None:
            xavier(self.forget_gate.weight)
        if self.to_value_mix is not None:
            xavier(self.to_value_mix.weight, self.to_value_mix.bias)
        if self.latent is not None:
            self.latent.init_xavier(gain)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        attend: Masks | None = None,
        rotary: Rotation | None = None,
        bias: Bias | None = None,
        scores: Tensor | None = None,
        keep_scores: bool = False,
        memory: Tensor | None = None,
        cache: LayerState | None = None,
        kv: KeysValues | None = None,
        values: Tensor | None = None,
        value_embed: Tensor | None = None,
        gives: Collection[str] = (),
        use: int = 0,
    ) -> Tensor | tuple[Tensor, Scores] | LayerOutput:
        """
        Args:
            x: (batch, seq, dim), or with the option `concat` (batch, seq, 2·dim)
            mask: (batch, seq) bool, True = attend; outside of a stack, where `attend` includes it.
            attend: the masks of the forward pass.
            rotary: rotation of queries and keys.
            bias: position bias of the scores.
            scores: (batch, heads, seq, keys) of an earlier block.
            keep_scores: return these scores and the weights too.
            memory: (batch, tokens, dim) of earlier segments, prepended to x for keys and values.
            cache: this block's keys and values of the tokens before x, and where new ones go.
            kv: of an earlier block, with the option `kv`.
            values: (batch, heads of values, tokens + seq, features) of an earlier block, with the option `values`.
            value_embed: (batch, tokens + seq, heads of values · their features), with the option `value_embed`.
            gives: what to return for later blocks: "kv", KeysValues; "values", those of the tokens alone.
            use: which of the blocks that share it this is, with the option `lora_rank`.

        Returns:
            (batch, seq, dim), and with keep_scores the Scores, each (batch, heads, seq, keys); with `gives` a
            LayerOutput.

        Raises:
            ValueError: kv or values are missing, or given without the option.
        """
        if mask is not None:
            check_mask("mask", mask, x)
        if (kv is None) == self.options.kv or (values is None) == self.options.values:
            raise ValueError(
                f"kv= and values= are for the options of these names, kv={self.options.kv} and values="
                f"{self.options.values}"
            )
        if (value_embed is None) != (self.options.value_embed is None):
            raise ValueError(f"value_embed= is for the option of this name, value_embed={self.options.value_embed}")
        past = 0 if memory is None else memory.shape[1]
        if attend is None:
            seen = mask if mask is None else F.pad(mask, (past, 0), value=True)
            attend = Masks(x.shape[1], past, mask=seen, device=x.device)
        values_of, own = None, kv
        if kv is not None:
            q, k, v = self.queries(x, rotary, use), kv.keys, kv.values
        elif self.latent is None:
            other = values if value_embed is None else split_heads(value_embed.to(x.dtype), self.kv_heads)
            q, own = self.keys_and_values(x, memory, rotary, cache, other, attend, use)
            k, v = own.keys, own.values
            if own.gates is not None:
                q, k = with_forgetting(q, k, own.gates, self.scale, attend.place)
        else:
            before = None if memory is None else apply_from(self.to_qkv, memory, self.sizes[0])
            q, k, v, values_of = self.latent(apply(self.to_qkv, x), before, rotary, cache)
        kept = own.kept if own is not None else None if cache is None else cache.window
        spec = self.mask_spec if kept is None else self.mask_spec._replace(kept=kept)
        out = self.attend(x, q, k, v, attend.tokens(spec, bias), scores, keep_scores, values_of)
        if not gives or own is None:
            return out
        return LayerOutput.of(out)._replace(gives={what: own if what == "kv" else own.alone for what in gives})

    def keys_and_values(
        self,
        x: Tensor,
        memory: Tensor | None,
        rotary: Rotation | None,
        cache: LayerState | None,
        other: Tensor | None = None,
        attend: Masks | None = None,
        use: int = 0,
    ) -> tuple[Tensor, KeysValues]:
        """Rotated queries of x, with rotated keys and values of all tokens that they may attend to.

        Args:
            other: (b, g, m + n, dv), what joins its own values of memory and x.
        """
        q, k, v = self.project(x, memory, use)
        if other is not None:
            v = self.joined(x, memory, v, other)
        if rotary is not None:
            q, k = rotary.before_cache(q, k)
        new, gates = v, None if self.forget_gate is None else self._gates(self.forget_gate, x, memory, attend)
        if cache is not None:
            further = {} if gates is None else {"gates": gates}
            keys, kept, *of_all = cache.append(keys=k, values=v, **further)
            k, v, gates = in_type_of(k, keys), in_type_of(v, kept), of_all[0] if of_all else None
        if rotary is not None:
            q, k = rotary.after_cache(q, k)
        if self.mem_kv is not None:
            k, v = self.with_memory(k, v)
        return q, KeysValues(k, v, None if new is v else new, None if cache is None else cache.window, gates)

    def _gates(self, gate: nn.Module, x: Tensor, memory: Tensor | None, attend: Masks | None) -> Tensor:
        """(b, m + n, h), the logarithms of the gates of memory and x; a token that is not real has none."""
        tokens = x if memory is None else torch.cat((memory, x), dim=1)
        given = None if attend is None or attend.place is not None else attend.mask
        return log_gates(gate, tokens, None if given is None else given[:, given.shape[1] - tokens.shape[1] :])

    def queries(self, x: Tensor, rotary: Rotation | None, use: int = 0) -> Tensor:
        """(b, h, n, d), normed and rotated, of `x: (b, n, dim)`, in a block without keys of its own."""
        q = split_heads(self._made(x, use), self.heads)
        q = q if self.qk_norm is None else self.qk_norm(q, keys=False)
        return q if rotary is None else rotary.queries(q)

    def joined(self, x: Tensor, memory: Tensor | None, own: Tensor, other: Tensor) -> Tensor:
        """Its own values and others, of an earlier block or a table, (b, g, n, dv), of the tokens of memory and x."""
        if self.value_gains is not None:
            return own * self.value_gains[0] + other * self.value_gains[1]
        if self.to_value_mix is None:
            return (own + other) / 2
        tokens = x if memory is None else torch.cat((memory, x), dim=1)
        share = apply(self.to_value_mix, tokens).sigmoid().transpose(1, 2)[..., None]  # of its own
        return other + share * (own - other)

    def _made(self, x: Tensor, use: int) -> Tensor:
        """Queries, keys and values of `x: (b, n, dim)`, those that it makes, as (b, n, features)."""
        made = apply(self.to_qkv, x)
        return made if self.lora is None else made + self.lora(x, use)

    def project(self, x: Tensor, memory: Tensor | None = None, use: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Heads of the queries of `x: (b, n, dim)`, and of the keys and values of `memory: (b, m, dim)` and x.

        One matrix computes them, its rows in this order.
        """
        projected = self._made(x, use)
        if memory is None and self.parts is not None:
            batch, seq, _ = x.shape
            heads = projected.view(batch, seq, self.heads + 2 * self.kv_heads, self.options.dim_head)
            q, k, v = heads.split_with_sizes(self.parts, dim=2)
            return *self.normed(q.transpose(1, 2), k.transpose(1, 2)), self.normed_values(v.transpose(1, 2))
        q, k, v = projected.split_with_sizes(self.sizes, dim=-1)
        if memory is not None:  # its queries are not needed
            queries, *rest = self.sizes
            made = apply_from(self.to_qkv, memory, queries)
            made = made if self.lora is None else made + self.lora(memory, use, first=1)
            before = made.split_with_sizes(rest, dim=-1)
            k, v = torch.cat((before[0], k), dim=1), torch.cat((before[1], v), dim=1)
        return self.split(q, k, v if self.sizes[2] else None)


class CrossAttention(AnyAttention):
    """Multi-head attention to a context (Vaswani et al., arXiv:1706.03762).

    Args:
        dim: features of the stream.
        options: of the block kind `c`: heads, dim_head, dropout, kv_heads, ...

    Raises:
        TypeError: an unknown option; the message names the nearest one.
        ValueError: a value out of range, or options that clash.
    """

    joint = "to_kv"

    @spells(parameters(by_name(CROSS_ATTENTION.options)))
    def __init__(self, dim: int, **options: Unpack[CrossAttentionOptions]) -> None:
        super().__init__(CROSS_ATTENTION, dim, options)
        self.to_q = nn.Linear(dim, self.sizes[0], bias=self.biases[0])
        self.to_kv = projection(self.options.dim_context, self.sizes[1:], self.biases[1:])

    def init_xavier(self, gain: float) -> None:
        """Xavier normal weights, with this gain for values and the output; shared keys and values count as values."""
        xavier(self.to_q.weight, self.to_q.bias)
        init_parts(self.to_kv, self.sizes[1:], gain)
        self.output.init_xavier(gain)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        attend: Masks | None = None,
        rotary: Rotation | None = None,
        context_rotary: Rotation | None = None,
        scores: Tensor | None = None,
        keep_scores: bool = False,
        cache: LayerState | None = None,
        values: Tensor | None = None,
        gives: Collection[str] = (),
    ) -> Tensor | tuple[Tensor, Scores] | LayerOutput:
        """
        Args:
            x: (batch, seq, dim)
            context: (batch, context, dim_context); None when the cache has its keys and values already. With the option
                `context`, (batch, seq, dim) of the same tokens as x, or (batch, earlier + seq, dim) with those before.
            context_mask: (batch, context) bool, True = attend; outside of a stack.
            rotary: rotation of queries.
            context_rotary: rotation of the context's keys.
            values: (batch, heads of values, context, features) of an earlier block, with the option `values`.
            gives: what to return for later blocks: "values".

        Returns:
            (batch, seq, dim), and with keep_scores the Scores, each (batch, heads, seq, context); with `gives` a
            LayerOutput.

        Raises:
            ValueError: the context is missing, or values, or they are given without the option.
        """
        if (values is None) == self.options.values:
            raise ValueError(f"values= are for the option of this name, values={self.options.values}")
        check_mask("context_mask", context_mask, context)
        q = apply(self.to_q, x)
        if context is None and cache is not None:
            k, v = in_type_of(q, cache.read("keys")), in_type_of(q, cache.read("values"))
            new = v
            q = split_heads(q, self.heads)
            q = q if self.qk_norm is None else self.qk_norm(q, keys=False)
        elif context is None:
            raise ValueError("cross-attention needs a context")
        else:
            check_tensor("context", context, x)
            kv = apply(self.to_kv, context.to(x.dtype))
            made = kv[..., self.sizes[1] :] if self.sizes[2] else None
            q, k, v = self.split(q, kv[..., : self.sizes[1]], made)
            k = k if context_rotary is None else context_rotary.apply(k)
            new = v = v if values is None else (v + values) / 2
            if cache is not None and self.options.context:
                keys, kept = cache.append(keys=k, values=v)
                k, v = in_type_of(k, keys), in_type_of(v, kept)
            elif cache is not None:
                cache.write("keys", k)
                cache.write("values", v)
        q = q if rotary is None else rotary.apply(q)
        masks = Masks(x.shape[1], context_mask=context_mask, device=x.device) if attend is None else attend
        if self.training and self.options.tokens_dropout:
            real = masks.context_mask
            real = torch.ones_like(k[:, 0, :, 0], dtype=torch.bool) if real is None else real
            seen = without_share(real, self.options.tokens_dropout)
            masks = Masks(x.shape[1], context_mask=seen, device=x.device)
        k, v = self.with_memory(k, v)
        memories = self.options.num_mem_kv
        own = masks.tokens(MaskSpec(masks.causal, None, memories)) if self.options.context else masks.context(memories)
        out = self.attend(x, q, k, v, own, scores, keep_scores)
        return LayerOutput.of(out)._replace(gives={"values": new}) if gives else out
