"""Which kernel computes each attention of a model, and why not the others.

    print(why(model, tokens))

Runs the model once as it is: the choice depends on its mode, gradients and sizes.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from torch import nn

from ..blocks.attention import Core
from ..kernels import table


def why(model: nn.Module, *args: Any, **kwargs: Any) -> str:
    """The kernels of `model(*args, **kwargs)`: one line for each attention, by its name in the model, in order.

    Raises:
        ValueError: no attention ran.
    """
    lines: list[str] = []
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if isinstance(module, Core):
                hooks.callback(module.register_forward_pre_hook(_recorder(name.rpartition(".")[0], lines)).remove)
        model(*args, **kwargs)
    if not lines:
        raise ValueError(f"no attention ran in {type(model).__name__}")
    return "\n".join(lines)


def _recorder(name: str, lines: list[str]) -> Any:
    prefix = f"{name}: " if name else ""
    return lambda core, args: lines.append(prefix + table.why(*args))
