"""What each layer of a Hugging Face model is: the keys of a configuration that say it, and the layers as one pattern.

`layer_types` (also called `layers_block_type`) says what mixes the tokens of each layer, `mlp_layer_types` which
feedforwards are experts. Where they are left out, older keys say the same by a list of numbers, a period or letters;
a family reads those that are its own by the functions below, and gives the result as what is usual:

    usual = named("full_attention", "linear_attention", periodic(config, layers, "attn_layer", 8, 4))
    types = layer_types(config, usual, known=usual)                                 # Jamba
    experts = expert_layers(config, periodic(config, layers, "expert_layer", 2, 1))

Leaves out what blocks a layer's name stands for, which each family says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..language.fold import Loop, fold
from .config import Config

# Names of older releases and of single families → those of today. A layer of linear attention has a state; whether
# that is Mamba's, a delta rule's or an RG-LRU's is the family's.
_TODAY = {"attention": "full_attention", "mamba": "linear_attention", "recurrent": "linear_attention"}

_LETTERS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
"""Of `hybrid_override_pattern`, which is Megatron's pattern."""


def layer_types(config: Config, usual: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """What mixes the tokens of each layer, by the names of today.

    Args:
        usual: where the configuration does not say, one for each layer.
        known: the names that the family can build.

    Raises:
        UserError: a layer is of another kind; there are more layers or fewer; two keys disagree.
    """
    names = ["layer_types", "layers_block_type"]  # two names of one key
    said = {name: _today(config, name) for name in names if config.get(name, None) is not None}
    if len({*said.values()}) > 1:
        raise config.lacks(f"layers_block_type={list(said[names[1]])!r}", "it is not what layer_types says")
    types = next(iter(said.values()), tuple(usual))
    known = tuple(known)
    if said and (len(types) != len(usual) or not {*types} <= {*known}):
        name = next(iter(said))
        raise config.lacks(f"{name}={config.get(name)!r}", f"it is not one of {' and '.join(known)} for each layer")
    return types


def expert_layers(config: Config, usual: Sequence[bool]) -> tuple[bool, ...]:
    """Which layers have experts in place of a feedforward.

    Args:
        usual: where `mlp_layer_types` does not say, one for each layer.

    Raises:
        UserError: as `layer_types` does.
    """
    if config.get("mlp_layer_types", None) is None:
        return tuple(usual)
    types = [*config.many("mlp_layer_types")]
    if len(types) != len(usual) or not {*types} <= {"dense", "sparse"}:
        raise config.lacks(f"mlp_layer_types={types!r}", "it is not one of dense and sparse for each layer")
    return tuple(each == "sparse" for each in types)


def named(yes: str, no: str, which: Iterable[bool]) -> tuple[str, ...]:
    """One of two names for each layer."""
    return tuple(yes if each else no for each in which)


def periodic(config: Config, layers: int, prefix: str, period: int, offset: int) -> tuple[bool, ...]:
    """Which layers `prefix_period` and `prefix_offset` say, as Jamba's `attn_layer_period`.

    Args:
        period, offset: where the configuration does not say.
    """
    every, first = config.integer(f"{prefix}_period", period), config.integer(f"{prefix}_offset", offset, least=0)
    return tuple(i % every == first for i in range(layers))


def each_last(config: Config, layers: int, name: str, default: int) -> tuple[bool, ...]:
    """The last layer of every so many, as Qwen3-Next's `full_attention_interval`.

    Args:
        name: the key that says how many.
        default: how many, where it does not.
    """
    every = config.integer(name, default)
    return tuple((i + 1) % every == 0 for i in range(layers))


def listed(config: Config, layers: int, name: str, default: Iterable[int] = (), start: int = 0) -> tuple[bool, ...]:
    """The layers whose numbers a key lists, as Bamba's `attn_layer_indices`.

    Args:
        default: their numbers, where the configuration does not say.
        start: the first layer's number.

    Raises:
        UserError: there is no such layer.
    """
    numbers = list(config.many(name, default))
    if lacking := [n for n in numbers if n not in range(start, start + layers)]:
        raise config.lacks(f"{name}={numbers!r}", f"layer {lacking[0]} is none of {start} to {start + layers - 1}")
    return tuple(i + start in numbers for i in range(layers))


def lettered(config: Config, name: str = "hybrid_override_pattern") -> tuple[str, ...]:
    """The layers that Nemotron-H writes as letters, by the names of today; none where it does not.

    Raises:
        UserError: a letter is not known.
    """
    letters = config.word(name, "")
    if unknown := [letter for letter in letters if letter not in _LETTERS]:
        raise config.lacks(f"{name}={letters!r}", f"{unknown[0]!r} is none of {' '.join(_LETTERS)}")
    return tuple(_LETTERS[letter] for letter in letters)


def repeated(layers: Sequence[str]) -> str:
    """The pattern of layers, each `a f` or the like, with what repeats written once."""

    def text(part: int | Loop) -> str:
        if isinstance(part, int):
            return layers[part]
        body = " ".join(map(text, part.body))
        return f"{body}*{part.count}" if re.fullmatch(r"\w+(\([^()]*\))?", body) else f"({body})*{part.count}"

    return " ".join(map(text, fold(layers, lambda index: len(layers[index]))))


def _today(config: Config, name: str) -> tuple[str, ...]:
    return tuple(_TODAY.get(each, each) for each in config.many(name))
