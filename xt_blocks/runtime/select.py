"""Parameters of a model by a selector: `a:even`, `f(glu)`, `@core`, `dec: a[0:6]`.

For learning rates and weight decay by kind or depth, and for freezing. What a selector may say is in
`blockdsl.graph.select`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from blockdsl.errors import UserError
from blockdsl.graph.select import SIDES, select

from .stack import Stack


def modules(model: nn.Module, selector: str) -> dict[str, nn.Module]:
    """The blocks and reads that a selector selects, by their names in the model; tied ones once.

    Raises:
        TypeError: the model has no stack.
        PatternError: the selector is wrong, or a part of it selects nothing.
    """
    stacks = {name: module for name, module in model.named_modules() if isinstance(module, Stack)}
    if not stacks:
        raise TypeError(f"there is no stack of blocks in {type(model).__name__}")
    streams = {name: _stream(name, [*stacks]) for name in stacks}
    found = select({streams[name]: stack.graph for name, stack in stacks.items()}, selector)
    out: dict[str, nn.Module] = {}
    for name, stack in stacks.items():
        owners = {node: owner for owner, nodes in stack.graph.tied().items() for node in nodes}
        for node in found[streams[name]]:
            if node in owners:
                of_type = "joins" if stack.graph.node_type(node) == "read" else "blocks"
                path = ".".join(filter(None, (name, of_type, owners[node])))
                out[path] = model.get_submodule(path)
    if not out:
        raise UserError(f"'{selector}' selects no blocks, but what is around them")
    return out


def _stream(name: str, names: list[str]) -> str:
    """Which stream a stack of several is: the first part of its name that tells it from the others."""
    if len(names) == 1:
        return ""
    parts = name.split(".")
    side = next((part for part in parts if part in SIDES), None)
    return side or next((p for p in parts if not all(p in other.split(".") for other in names)), name)


def parameters(model: nn.Module, selector: str) -> dict[str, nn.Parameter]:
    """The parameters of the blocks that a selector selects, by their names in the model.

        for parameter in parameters(model, "stem: *").values():
            parameter.requires_grad_(False)

    Args:
        model: a stack, or any module with stacks inside.
        selector: see `blockdsl.graph.select`: `a`, `f(glu)`, `@core`, `dec: a[0:6]`, `a:even`.

    Raises:
        TypeError: the model has no stack.
        PatternError: the selector is wrong, or a part of it selects nothing.
    """
    chosen = {id(p) for module in modules(model, selector).values() for p in module.parameters()}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in chosen}


def parameter_groups(model: nn.Module, groups: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All parameters of a model as groups of an optimiser, the last one of those that no selector selects.

        AdamW(parameter_groups(model, {"a": {"lr": 1e-4}, "f": {"weight_decay": 0.0}}), lr=3e-4)

    Args:
        groups: what an optimiser is told of the parameters that a selector selects.

    Raises:
        UserError: two selectors select one parameter.
        TypeError, PatternError: as of `parameters`.
    """
    taken: dict[int, str] = {}
    out: list[dict[str, Any]] = []
    for selector, settings in groups.items():
        chosen = parameters(model, selector)
        for name, parameter in chosen.items():
            if id(parameter) in taken:
                raise UserError(f"{name} is selected twice, by '{taken[id(parameter)]}' and by '{selector}'")
            taken[id(parameter)] = selector
        out.append({"params": [*chosen.values()], **settings})
    rest = [parameter for parameter in model.parameters() if id(parameter) not in taken]
    return [*out, {"params": rest}] if rest else out
