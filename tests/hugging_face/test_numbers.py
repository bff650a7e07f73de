"""Every number of a configuration, put to what it cannot be: each family refuses it in words, or has such a model."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import pytest

from blockdsl.errors import UserError
from blockdsl.hugging_face import read

from .test_families import FAMILIES

WRONG = (0, -1, 3, 2.5, math.inf, 10**400, "x", [], None)


def numbers(config: Mapping[str, Any], within: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where a configuration has a number, also within others."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from numbers(value, (*within, name))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield *within, name


def refusal(config: Mapping[str, Any], place: tuple[str, ...], value: Any, architecture: str) -> str | None:
    changed = inner = copy.deepcopy(config)
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value  # type: ignore[index]
    try:
        read(changed, architecture).graphs()
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", FAMILIES)
def test_numbers_out_of_range(name: str) -> None:
    test = import_module(f".test_{name}", __package__)
    peer = test.peer(next(iter(test.CASES)))
    config, architecture = peer.config.to_dict(), type(peer).__name__
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for place in numbers(config):
            for value in WRONG:
                said = refusal(config, place, value, architecture)
                refused += said is not None
                # a number that goes on its own but not with others is refused by those, in some families
                if said is not None and value not in (None, 3):
                    assert place[-1] in said, (place, value)
                    assert repr(value)[:20] in said, (place, value, said)
    assert refused > 20


def test_heads_that_do_not_share_the_width() -> None:
    llama = {"model_type": "llama", "hidden_size": 16, "num_attention_heads": 3, "num_hidden_layers": 1}
    rest = {"vocab_size": 7, "intermediate_size": 8}
    with pytest.raises(UserError, match=r"^num_attention_heads=3 does not divide hidden_size=16$"):
        read({**llama, **rest})
    said = {**llama, **rest, "num_attention_heads": 4, "num_key_value_heads": 3}
    with pytest.raises(UserError) as error:
        read(said).graphs()
    assert "num_key_value_heads=3; in our words:\n" in str(error.value)
    assert "kv_heads=3 does not divide heads=4" in str(error.value)
