"""Configurations of Hugging Face models as patterns and graphs, without torch.

    reading = blockdsl.hugging_face.read("path/to/config.json")     # or the folder, or a dict
    reading.texts[""]                                               # set dim=..., heads=...; (a f)*32
    reading.graphs()[""]                                            # a BlockGraph

Every module in this folder that has a FAMILY is a family; how to add one is in `family`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import UserError, nearest
from ..files import read_object
from .config import Config
from .family import Family, Reading

LACKING = {
    "zamba": "its Mamba-1 has heads, each with steps and matrices of its own, for which there is no option here",
}
"""By `model_type`, what models need that there is not."""


@cache
def families() -> dict[str, Family]:
    """The families by the `model_type` of their configurations."""
    modules = (import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    known = (module.FAMILY for module in modules if hasattr(module, "FAMILY"))
    return {name: family for family in known for name in family.model_types}


def read(config: Mapping[str, Any] | str | PathLike[str], architecture: str | None = None) -> Reading:
    """What a configuration says.

    Args:
        config: a dict, a config.json, or the folder that has one.
        architecture: the class to read it for; None: the one it names.

    Raises:
        UserError: there is no such file or it is damaged; its model type or its class is not known; it has a key that
            is not, or asks for something that there is no option for, as a whole model type in `LACKING` does.
    """
    values = config if isinstance(config, Mapping) else read_object(_file(Path(config)))
    model_type = values.get("model_type")
    if not isinstance(model_type, str):
        own = "; xt_blocks.from_pretrained reads a model of xt_blocks" if "xt_blocks" in values else ""
        raise UserError(f"the configuration has no model_type, which says whose model it is{own}")
    if model_type in LACKING:
        raise UserError(f"model_type={model_type!r}: {LACKING[model_type]}")
    family = families().get(model_type)
    if family is None:
        like = nearest(model_type, families())
        hint = f"; the nearest that is known is '{like}'" if like else f"; known are {', '.join(sorted(families()))}"
        raise UserError(f"model_type={model_type!r} is not known here{hint}")
    read_for = Config(values)
    read_for.architecture = architecture or _architecture(values, family)
    _check_architecture(read_for.architecture, family)
    read_for.base = read_for.architecture == family.base
    parts = family.read(read_for)
    read_for.check_all_read()
    return Reading(values, family, read_for.architecture, parts, read_for.numbers_read())


def _architecture(values: Mapping[str, Any], family: Family) -> str:
    named = values.get("architectures")
    return str(named[0]) if isinstance(named, list | tuple) and named else family.architectures[0]


def _check_architecture(name: str, family: Family) -> None:
    known = [*family.architectures, family.base]
    if name not in known:
        raise UserError(
            f"the head of {name} cannot be built here: {', '.join(known)} can; architecture={family.base!r} leaves "
            "the head out"
        )


def _file(path: Path) -> Path:
    return path / "config.json" if path.is_dir() else path
