"""Which kernel each attention of a model is computed by, and why by none of the others.

    print(why(model, tokens))

The model is run once, as it stands: the choice depends on its mode, on gradients and on sizes.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from torch import nn

from ..blocks.attention import Core
from ..kernels import table


def why(model: nn.Module, *args: Any, **kwargs: Any) -> str:
    """The kernels of one call, `model(*args, **kwargs)`: each attention's, by its name in the model, as they ran.

    Raises:
        ValueError: no attention ran.
    """
    told: list[str] = []
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if isinstance(module, Core):
                hooks.callback(module.register_forward_pre_hook(_telling(name.rpartition(".")[0], told)).remove)
        model(*args, **kwargs)
    if not told:
        raise ValueError(f"no attention ran in {type(model).__name__}")
    return "\n".join(told)


def _telling(name: str, told: list[str]) -> Any:
    prefix = f"{name}: " if name else ""
    return lambda core, args: told.append(prefix + table.why(*args))
