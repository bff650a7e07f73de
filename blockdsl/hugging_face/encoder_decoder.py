"""How an encoder-decoder generates, as its configuration says. Leaves searches out: ours draws one token at a time.

Recent releases of transformers keep these keys in generation_config.json, older ones in config.json.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from .config import Config

KEYS = [
    "pad_token_id",
    "eos_token_id",
    "decoder_start_token_id",
    "forced_decoder_ids",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
]


# Keys of searches that draw other tokens than the likeliest, and the values with which they do not.
_SEARCHES: dict[str, Any] = {
    "bad_words_ids": None,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
}


def generation(config: Config, **defaults: Any) -> dict[str, Any]:
    """The arguments of XTransformer for what the configuration starts with, forces and leaves out.

    Args:
        defaults: of the family, by the configuration's keys; those that it does not have.
    """

    def said(name: str) -> Any:
        config.ignore(name)
        return config.values.get(name, defaults.get(name))

    if searches := [f"{name}={said(name)!r}" for name, none in _SEARCHES.items() if said(name) not in (None, none)]:
        warnings.warn(f"generate does not do what the configuration says: {', '.join(searches)}", stacklevel=5)
    pad, eos = said("pad_token_id"), _one(said("eos_token_id"))
    start = said("decoder_start_token_id")
    forced = {place - 1: token for place, token in said("forced_decoder_ids") or () if token is not None}
    for step, name in ((0, "forced_bos_token_id"), (-1, "forced_eos_token_id")):
        if (token := _one(said(name))) is not None:
            forced[step] = token
    options = {
        "eos_token": eos,
        "suppress_tokens": said("suppress_tokens"),
        "begin_suppress_tokens": said("begin_suppress_tokens"),
        "forced_tokens": forced,
    }
    return {
        "pad_value": 0 if pad is None else pad,
        "start_token": start,
        "generation": {name: value for name, value in options.items() if value not in (None, [], (), {})},
    }


def generation_config(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse: a generation_config.json of the arguments of an XTransformer."""
    own = arguments["generation"]
    forced = dict(own.get("forced_tokens") or {})
    said = {
        "pad_token_id": arguments["pad_value"],
        "decoder_start_token_id": arguments["start_token"],
        "eos_token_id": own.get("eos_token"),
        "suppress_tokens": own.get("suppress_tokens"),
        "begin_suppress_tokens": own.get("begin_suppress_tokens"),
        "forced_bos_token_id": forced.pop(0, None) if {*forced} <= {0, -1} else None,
        "forced_eos_token_id": forced.pop(-1, None),
        "forced_decoder_ids": [[step + 1, token] for step, token in forced.items()],
    }
    return {name: value for name, value in said.items() if value not in (None, [], ())}


def _one(token: Any) -> Any:
    """A token of a configuration that may have a list of them."""
    return token[0] if isinstance(token, list | tuple) and len(token) == 1 else token
