"""Which kernel computes each attention of a model, and why not the others.

    print(why(model, tokens))

Runs the model once as it is: the choice depends on its mode, gradients and sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock, get_ident
from typing import Any

from torch import nn

from ..blocks.attention import AnyAttention
from ..kernels import table
from ..kernels.request import Request, Result

_ONE_AT_A_TIME = RLock()  # what it replaces is the module's, and so of all threads


def why(model: nn.Module, *args: Any, **kwargs: Any) -> str:
    """The kernels of `model(*args, **kwargs)`: one line for each attention, by its name in the model, in order.

    Raises:
        ValueError: no attention ran.
    """
    lines: list[str] = []
    attentions = {name: module for name, module in model.named_modules() if isinstance(module, AnyAttention)}
    with _ONE_AT_A_TIME:
        try:
            for name, module in attentions.items():
                module.core = _recorded(name, lines)
            model(*args, **kwargs)
        finally:
            for module in attentions.values():
                vars(module).pop("core", None)
    if not lines:
        raise ValueError(f"no attention ran in {type(model).__name__}")
    return "\n".join(lines)


def _recorded(name: str, lines: list[str]) -> Callable[[Request], Result]:
    prefix, thread = f"{name}: " if name else "", get_ident()

    def core(request: Request) -> Result:
        if get_ident() == thread:
            lines.append(prefix + table.why(request))
        return table.attention(request)

    return core
