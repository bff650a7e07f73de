"""The keyword API: stacks by keyword arguments, as x-transformers has them.

Each builds a pattern and settings, compiles them and lowers the graph. There is no other way to build a model,
so the two spellings cannot differ.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import blockdsl  # not `from blockdsl import compile`, which loads networkx now and not when a model is made
from blockdsl import Pattern, parse
from blockdsl.errors import PatternError, UserError
from blockdsl.language.ordering import ORDERING_KEYWORDS, pattern_of
from blockdsl.registry.keywords import parameters, spells
from blockdsl.registry.kinds import kinds
from blockdsl.registry.options import check_names, plain
from blockdsl.registry.settings import checked_keywords, table
from blockdsl.registry.tokens import MODEL_OPTIONS, MODELS

from ..runtime.stack import Stack

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from blockdsl.signatures import LayersKeywords, StackSettings

# Settings of the model around a stack; the wrappers take them.
_WRAPPER_SETTINGS = {option.name for option in MODEL_OPTIONS}
_WRAPPERS = {
    "tokens": "TransformerWrapper",
    "vectors": "ContinuousTransformerWrapper",
    "images": "ViTransformerWrapper",
}

# Settings that say something of a stack whatever its blocks are.
_OF_ANY_STACK = ("heads", "attn_dim_head", "ff_mult", "causal")

# Two that say the order block by block are settings of the stack too.
ORDERING = tuple(row.name for row in ORDERING_KEYWORDS if row.name not in ("shift_tokens", "layer_dropout"))


def stack_keywords() -> list[str]:
    """Every keyword argument of a stack."""
    return [*(setting for setting in table() if setting not in _WRAPPER_SETTINGS), *ORDERING, "pattern"]


class AttentionLayers(Stack):
    """A stack of blocks.

    Args:
        dim: features of the stream.
        depth: how many times the default block (`a f`; with cross_attend `a c f`) is run.
        heads: attention heads.
        causal: each token sees itself and those before it.
        pattern: the blocks and their order, in place of depth and the other ordering arguments.
        cross_attend, only_cross, macaron, sandwich_coef, par_ratio, custom_layers, unet_skips, add_value_residual,
            learned_value_residual_mix: the order and the wiring; see `blockdsl.language.ordering`.
        shift_tokens: token shift of every block, or of each block as a tuple.
        layer_dropout: stochastic depth of every block, or of each block as a tuple.
        settings: any other setting of the stack: attn_dim_head, attn_dropout, ff_mult, ff_glu, use_rmsnorm,
            rotary_pos_emb, ... `blockdsl.registry.settings.table()` has them all.

    Raises:
        TypeError: an unknown argument (the message names the nearest one), or two that clash.
        PatternError, UserError: the pattern or a value is at fault, or no block reads a setting, which with pattern= is
            a warning.
    """

    @spells(parameters({name: option for name, option in table().items() if name not in _WRAPPER_SETTINGS}))
    def __init__(
        self,
        dim: int | None = None,
        depth: int | None = None,
        *,
        pattern: str | Pattern | None = None,
        cross_attend: bool = False,
        only_cross: bool = False,
        macaron: bool = False,
        sandwich_coef: int | None = None,
        par_ratio: int | None = None,
        custom_layers: Sequence[str] | None = None,
        unet_skips: bool = False,
        add_value_residual: bool = False,
        learned_value_residual_mix: bool | None = None,
        shift_tokens: int | Sequence[int] | None = None,
        layer_dropout: float | Sequence[float] | None = None,
        **settings: Unpack[StackSettings],
    ) -> None:
        order = (
            *(depth, cross_attend, only_cross, macaron, sandwich_coef, par_ratio, custom_layers),
            *(unet_skips, add_value_residual, learned_value_residual_mix),
        )
        ordering: dict[str, Any] = dict(zip(ORDERING, order, strict=True))
        each = {"shift_tokens": plain(shift_tokens), "layer_dropout": plain(layer_dropout)}
        per_block = {name: value for name, value in each.items() if isinstance(value, list | tuple)}
        given: dict[str, Any] = {**settings}
        given |= {n: value for n, value in each.items() if value is not None and n not in per_block}
        if dim is not None:
            given["dim"] = dim
        self._check_names(given)
        given = checked_keywords(given, type(self).__name__)
        ordering |= per_block
        if pattern is None:
            built = pattern_of(**ordering)
            for reason in _unread(given, built):
                raise UserError(reason)
        else:
            twice = [name for name, value in ordering.items() if value not in (None, False)]
            if twice:
                raise TypeError(f"pattern= and {'=, '.join(twice)}= are both given; the pattern has the order")
            built = parse(pattern) if isinstance(pattern, str) else pattern
            if built.encoder is not None:
                hint = "XTransformer(pattern=...) and xt_blocks.lower take both"
                raise TypeError(f"{type(self).__name__}'s pattern is of one stream, and this has two; {hint}")
            _check_settings(built)
            for reason in _unread(given, built):  # one set of keywords may go with many patterns
                warnings.warn(reason, stacklevel=3)
        super().__init__(blockdsl.compile(built, **given))

    def _check_names(self, settings: dict[str, Any]) -> None:
        name = type(self).__name__
        known = stack_keywords()
        for setting in settings:
            if setting in _WRAPPER_SETTINGS:
                raise TypeError(f"{name}() got '{setting}', which belongs to {_wrapper(setting)}")
        check_names(settings, known, f"{name}() got an unknown argument")


def _unread(settings: Mapping[str, Any], pattern: Pattern) -> Iterator[str]:
    """Settings that blocks of other kinds alone would read, as ff_glu is without a feedforward."""
    used = {*pattern.layer_types}
    for name, value in settings.items():
        of = {kind.name: o for kind in kinds().values() for o in kind.all_options() if o.setting == name}
        if of and not used & of.keys() and name not in _OF_ANY_STACK and value != next(iter(of.values())).default:
            readers = " and ".join(f"{kinds()[kind].title} ('{kind}')" for kind in of)
            yield f"{name} is set, but no block of the stack reads it: {readers} would"


def _check_settings(pattern: Pattern) -> None:
    """A stack's text must not set what belongs to the wrapper around it."""
    for name, span in pattern.setting_spans.items():
        if name in _WRAPPER_SETTINGS:
            problem = f"{name} belongs to the model around the stack"
            hint = f"give it to {_wrapper(name)}, or lower the text: xt_blocks.lower(blockdsl.compile(...))"
            raise PatternError(pattern.source, span, problem, hint)


def _wrapper(setting: str) -> str:
    """The class that takes a setting of the model around a stack."""
    return next(_WRAPPERS[model] for model, own in MODELS.items() if setting in {option.name for option in own})


def _without(name: str, settings: Mapping[str, Any], fixed: dict[str, str]) -> None:
    for setting, reason in fixed.items():
        if setting in settings:
            raise TypeError(f"{name}() takes no {setting}=: {reason}")


# For the subclasses below, which fix whether they are causal.
_LAYERS_KEYWORDS = [p for name, p in signature(AttentionLayers).parameters.items() if name != "causal"]


class Encoder(AttentionLayers):
    """A stack in which every token sees every other. Arguments as for AttentionLayers, without causal."""

    @spells(_LAYERS_KEYWORDS)
    def __init__(self, dim: int | None = None, depth: int | None = None, **kwargs: Unpack[LayersKeywords]) -> None:
        _without("Encoder", kwargs, {"causal": "an encoder is not causal; use Decoder"})
        super().__init__(dim, depth, causal=False, **kwargs)


class Decoder(AttentionLayers):
    """A causal stack. Arguments as for AttentionLayers, without causal."""

    @spells(_LAYERS_KEYWORDS)
    def __init__(self, dim: int | None = None, depth: int | None = None, **kwargs: Unpack[LayersKeywords]) -> None:
        _without("Decoder", kwargs, {"causal": "a decoder is causal; use Encoder for one that is not"})
        super().__init__(dim, depth, causal=True, **kwargs)


class CrossAttender(AttentionLayers):
    """A stack that only attends to a context, `c f`. Arguments as for AttentionLayers, without the fixed ones."""

    @spells(p for p in _LAYERS_KEYWORDS if p.name not in ("cross_attend", "only_cross"))
    def __init__(self, dim: int | None = None, depth: int | None = None, **kwargs: Unpack[LayersKeywords]) -> None:
        reason = "a cross-attender attends to its context only"
        _without("CrossAttender", kwargs, {"cross_attend": reason, "only_cross": reason, "causal": reason})
        if kwargs.get("pattern") is None:
            kwargs |= {"cross_attend": True, "only_cross": True}
        super().__init__(dim, depth, causal=False, **kwargs)
        if not self.reads_context:
            raise TypeError("CrossAttender's pattern has no 'c' to attend to the context with")
