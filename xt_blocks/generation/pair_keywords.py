"""What XTransformer's keywords say of each of its two streams, and which of them cannot be meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

import blockdsl  # not `from blockdsl import compile`, which loads networkx now and not when a model is made
from blockdsl import Pattern, parse
from blockdsl.errors import did_you_mean
from blockdsl.language.ordering import pattern_of
from blockdsl.registry.settings import deepnorm_settings, table
from blockdsl.registry.streams import ANYWAY, NO_CONTEXT, REFUSED, SIDES, checked_pair_keywords, side_of
from blockdsl.registry.tokens import TOKEN_OPTIONS

from ..models.layers import ORDERING, Decoder, Encoder, stack_keywords
from ..models.transformer import TransformerWrapper

if TYPE_CHECKING:
    from blockdsl import BlockGraph

_OF_WRAPPER = {option.name for option in TOKEN_OPTIONS}

# Keywords beside the settings that one of the two cannot take, and why; a value that says what is so anyway is taken.
_OF_CROSS_ATTENTION = ("cross_attn_dim_context", "cross_attn_rotary", "cross_attn_tokens_dropout")
_OF_BOTH = {
    "dim": "encoder and decoder are of one width: give dim=",
    "causal": "the decoder is causal and the encoder is not",
}
_REFUSED = {
    "enc_": {**REFUSED["enc_"], **_OF_BOTH}
    | dict.fromkeys(("cross_attend", "only_cross", *_OF_CROSS_ATTENTION), NO_CONTEXT),
    "dec_": {**REFUSED["dec_"], **_OF_BOTH, "cross_attend": "the decoder attends to the encoder's output anyway"},
}
_ANYWAY: dict[str, dict[str, Any]] = {
    "enc_": ANYWAY["enc_"]
    | dict.fromkeys(("causal", "cross_attend", "only_cross"), False)
    | {"cross_attn_tokens_dropout": 0},
    "dec_": ANYWAY["dec_"] | {"causal": True, "cross_attend": True},
}


def keywords_of_both() -> Iterator[Parameter]:
    """Both sides' own: those of a TransformerWrapper and of its stack, with the side's prefix."""
    for prefix, stack in (("enc_", Encoder), ("dec_", Decoder)):
        for parameter in (*signature(TransformerWrapper).parameters.values(), *signature(stack).parameters.values()):
            if parameter.name not in _REFUSED[prefix] and parameter.name != "attn_layers":
                yield parameter.replace(name=prefix + parameter.name, kind=Parameter.KEYWORD_ONLY)


def check_pair_keywords(keywords: Mapping[str, Any]) -> None:
    """Raise TypeError at a keyword that neither side has or that its side cannot take, and where one is missing."""
    known = [prefix + name for prefix in SIDES for name in (*_OF_WRAPPER, *stack_keywords())]
    known += ["dim", "tie_token_emb", "ignore_index", "pad_value", "cross_attn_tokens_dropout", "deepnorm"]
    known += ["return_tgt_loss", "start_token", "generation"]
    for keyword in keywords:
        prefix, name = keyword[:4], keyword[4:]
        anyway = _ANYWAY.get(prefix, {}).get(name, ...) == keywords[keyword]
        if not anyway and (reason := _REFUSED.get(prefix, {}).get(name)):
            raise TypeError(f"XTransformer() takes no {keyword}=: {reason}")
        if keyword not in known:
            hint = did_you_mean(keyword, [name for name in known if _REFUSED.get(name[:4], {}).get(name[4:]) is None])
            raise TypeError(f"XTransformer() got an unknown argument '{keyword}'" + (f"; {hint}" if hint else ""))
    for needed in (prefix + name for prefix in SIDES for name in ("num_tokens", "max_seq_len")):
        if needed not in keywords:
            raise TypeError(f"XTransformer() needs {needed}=")


def graph_of_both(pattern: str | Pattern, settings: Mapping[str, Any]) -> BlockGraph:
    """The graph of two streams over tokens, from their text.

    Raises:
        TypeError: the text has one stream, or a keyword is unknown, says the order of blocks, or is missing.
    """
    pattern = parse(pattern) if isinstance(pattern, str) else pattern
    if pattern.encoder is None:
        hint = "enc_pattern= and dec_pattern= are of one each"
        raise TypeError(f"XTransformer's pattern has two streams, as (a f)*6 => (a c f)*6; {hint}")
    orders = [name for name in settings if side_of(name)[1] not in table() and name[4:] in (*ORDERING, "pattern")]
    if orders:
        raise TypeError(f"pattern= and {'=, '.join(orders)}= are both given; the pattern has the order")
    graph = blockdsl.compile(pattern, **checked_pair_keywords(settings, "XTransformer"))
    for prefix, stream in (("enc_", graph.encoder), ("dec_", graph)):
        if stream is None or stream.reads is None or (prefix == "dec_" and stream.reads != "tokens"):
            raise TypeError(f"XTransformer() needs {prefix}num_tokens=; lower takes graphs of two stacks alone")
    return graph


def keywords_of_side(prefix: str, keywords: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keywords of one side without their prefix: TransformerWrapper's, and the stack's."""
    own = {name.removeprefix(prefix): value for name, value in keywords.items() if name.startswith(prefix)}
    own = {name: value for name, value in own.items() if name not in _REFUSED[prefix]}  # what is so anyway
    tokens = {name: own.pop(name) for name in [*own] if name in _OF_WRAPPER}
    return tokens, own


def with_deepnorm(encoder: dict[str, Any], decoder: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of both with DeepNorm's constants for an encoder that a decoder reads."""
    for prefix, settings in (("enc_", encoder), ("dec_", decoder)):
        if "deepnorm" in settings:
            raise TypeError(f"deepnorm= is of both, and {prefix}deepnorm= is given too; give one")
    constants = deepnorm_settings(_blocks(encoder), _blocks(decoder))
    own = {name: constants[name] for name in ("scale_residual_constant", "init_gain")}
    return {"deepnorm": True} | own | encoder, {"deepnorm": True} | decoder


def _blocks(settings: dict[str, Any]) -> int:
    """How many blocks the stack with these settings has."""
    pattern = settings.get("pattern")
    if pattern is None:
        pattern = pattern_of(**{name: settings[name] for name in ORDERING if name in settings})
    return len((parse(pattern) if isinstance(pattern, str) else pattern).layer_types)
