"""Settings of two streams, `p => q`: an encoder and a decoder that attends to what it gives.

A setting is of both; with `enc_` or `dec_` before its name it is of one, and wins there. Owns which of the two takes
which, what neither or one of them cannot have, and why. The keywords of an encoder-decoder are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .kinds import kinds
from .options import Option, Value, by_name, check_names, checked_values
from .settings import table
from .tokens import LOGITS_OPTIONS

SIDES = {"enc_": "encoder", "dec_": "decoder"}
"""Prefix of a setting → the stream that it is of."""

PAIR_OPTIONS = (Option("tie_token_emb", bool, False, "one embedding of tokens for the encoder and the decoder"),)
"""Settings of two streams together; no stack alone has them."""

_NO_MEMORIES = "encoder and decoder read whole sequences and keep no memories"
_NO_POOL = "encoder and decoder give an output for each token"

NO_CONTEXT = "the encoder has no context to attend to"

OF_NEITHER = {
    "context": "the decoder reads the encoder's output, and the encoder reads no context",
    "return_only_embed": "the encoder gives embeddings and the decoder logits",
    "max_mem_len": _NO_MEMORIES,
    "shift_mem_down": _NO_MEMORIES,
    "pool": _NO_POOL,
    "pooler": _NO_POOL,
    "end_token": _NO_POOL,
}
REFUSED = {
    "": {
        **OF_NEITHER,
        "causal": "the decoder is causal and the encoder is not; enc_causal and dec_causal say otherwise",
    },
    "enc_": {**OF_NEITHER, **{option.name: "the encoder gives no logits" for option in LOGITS_OPTIONS}},
    "dec_": OF_NEITHER,
}
"""Prefix → settings that cannot be given with it, and why; but for a value that says what is so anyway."""

_NEVER: dict[str, Value] = {"max_mem_len": 0, "shift_mem_down": 0, "pool": None, "pooler": False, "end_token": None}
ANYWAY: dict[str, dict[str, Value]] = {
    "": _NEVER,
    "enc_": {
        **_NEVER,
        **{option.name: option.default for option in LOGITS_OPTIONS},
        "context": False,
        "return_only_embed": True,
    },
    "dec_": {**_NEVER, "context": True, "return_only_embed": False},
}
"""Prefix → settings that are so anyway."""


def pair_table() -> dict[str, Option]:
    """Every setting of two streams by name: those of a stack, those of one of them, and those of both together."""
    known = table()
    return {
        **known,
        **{side + name: option for side in SIDES for name, option in known.items()},
        **by_name(PAIR_OPTIONS),
    }


def checked_pair_keywords(given: Mapping[str, Any], caller: str = "compile") -> dict[str, Any]:
    """Settings of two streams given as Python keywords, their values in Python's own types.

    Raises:
        TypeError: an unknown name, with the nearest one in the message, or one that two streams do not take.
        UserError: a value out of range.
    """
    known = pair_table()
    check_names(given, known, f"{caller}() got an unknown setting")
    for name, value in given.items():
        if reason := refusal(name, value):
            raise TypeError(f"{caller}() takes no {name}= of two streams: {reason}")
    return checked_values(given, known)


def side_of(name: str) -> tuple[str, str]:
    """A setting's prefix, which may be empty, and its name without it."""
    prefix = name[:4]
    return (prefix, name[4:]) if prefix in SIDES and name[4:] in table() else ("", name)


def of_cross_attention() -> set[str]:
    """Settings that blocks that attend to a context read, and no others."""
    known = [(option.setting, "context" in kind.inputs) for kind in kinds().values() for option in kind.all_options()]
    return {name for name, attends in known if name is not None and attends} - {
        n for n, attends in known if not attends
    }


def refusal(name: str, value: Any) -> str | None:
    """Why two streams cannot be given this setting, or None when they can."""
    prefix, own = side_of(name)
    if prefix == "enc_" and own in of_cross_attention() and value != table()[own].default:
        return NO_CONTEXT
    if ANYWAY[prefix].get(own, ...) == value:
        return None
    return REFUSED[prefix].get(own)


def names_for(side: str, given: Mapping[str, Any]) -> dict[str, str]:
    """The settings that are given to one stream: its own name → the name that was given; its prefix wins."""
    others = of_cross_attention() if side == "enc_" else set()
    own = {n: n for n in given if side_of(n) == ("", n) and _meant_for(side, n) and n not in others}
    return own | {
        own: name for name in given for prefix, own in (side_of(name),) if prefix == side and _meant_for(side, own)
    }


def _meant_for(side: str, name: str) -> bool:
    """Whether a setting says something of this stream: the encoder has no logits, and neither keeps memories."""
    return name not in ANYWAY[side] and name not in by_name(PAIR_OPTIONS)


def implied(side: str, settings: Mapping[str, Any]) -> dict[str, Value]:
    """What a stream is by being one of two, where its settings do not say otherwise."""
    if side == "dec_":
        return {} if "causal" in settings else {"causal": True}
    return {} if settings.get("num_tokens") is None else {"return_only_embed": True}
