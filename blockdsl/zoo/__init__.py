"""Published models, each a text: `zoo.gpt2`, `zoo.llama3("70b")`, and `zoo:llama3-70b` on the command line. No torch.

    print(zoo.gpt2.text)            # the pattern with its settings
    zoo.gpt2.sizes                  # ('small', 'medium', 'large', 'xl')
    zoo.gpt2("xl").graph()          # a BlockGraph, which xt_blocks.lower makes a model

Owns how an entry is found. The texts are in `decoders`, `experts`, `hybrids`, `encoders` and `encoder_decoders`;
`family` says how they are written.
"""

from __future__ import annotations

from typing import Any

from ..errors import UserError, did_you_mean
from . import decoders, encoder_decoders, encoders, experts, hybrids
from .family import ModelFamily, PublishedModel

FAMILIES: dict[str, ModelFamily] = {
    name: value
    for module in (decoders, experts, hybrids, encoder_decoders, encoders)
    for name, value in vars(module).items()
    if isinstance(value, ModelFamily)
}
"""By name, in the order of the files."""


def names() -> list[str]:
    """Every family with every size, as `entry` takes them: gpt2-small, gpt2-medium, ..."""
    return [f"{name}-{size}" for name, family in FAMILIES.items() for size in family.sizes]


def entry(name: str) -> PublishedModel:
    """The entry of a name: `gpt2`, `llama3.1-70b`, in which dots, hyphens and underscores are alike.

    Raises:
        UserError: there is none; the message has the nearest.
    """
    known: dict[str, PublishedModel] = {_plain(n): PublishedModel.of(n, family) for n, family in FAMILIES.items()}
    found = known.get(_plain(name))
    if found is None:
        every = {_plain(f"{n}-{size}"): of(size) for n, of in known.items() for size in of.sizes}
        found = every.get(_plain(name))
    if found is None:
        hint = did_you_mean(name, [*FAMILIES, *names()]) or f"there are {', '.join(FAMILIES)}"
        raise UserError(f"the zoo has no '{name}'; {hint}")
    return found


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


def __getattr__(name: str) -> Any:
    if name in FAMILIES:
        return PublishedModel.of(name, FAMILIES[name])
    if name.startswith("__"):
        raise AttributeError(name)
    hint = did_you_mean(name, FAMILIES)
    raise AttributeError(f"the zoo has no '{name}'" + (f"; {hint}" if hint else ""))


def __dir__() -> list[str]:
    return [*FAMILIES, "FAMILIES", "entry", "names"]
