"""Custom operators, through which compiled graphs run the same kernels as eager code.

A graph holds such an operator as one node. Sizes are read when it runs, so that one graph serves any length.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from torch import Tensor


def _library() -> Any:
    """A library under a name that is still free: the package may be imported twice."""
    for i in count():
        try:
            return torch.library.Library(f"xt_blocks{i or ''}", "DEF")  # type: ignore[no-untyped-call]
        except RuntimeError:
            if i == 99:
                raise


_LIBRARY = _library()


def define(
    schema: str,
    run: Callable[..., Tensor],
    shape: Callable[..., Tensor],
    backward: Callable[..., Any] | None = None,
    save: Callable[..., None] | None = None,
) -> Any:
    """Register an operator; returns it.

    Args:
        schema: its name, arguments and result, in torch.library's syntax.
        run: computes it, without gradients.
        shape: an empty result.
        backward, save: as for `torch.library.register_autograd`; None: it has no gradient.
    """
    _LIBRARY.define(schema)
    name = schema.partition("(")[0]
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{_LIBRARY.ns}::{name}", shape, lib=_LIBRARY)
    if backward is not None:
        torch.library.register_autograd(f"{_LIBRARY.ns}::{name}", backward, setup_context=save, lib=_LIBRARY)
    return getattr(getattr(torch.ops, _LIBRARY.ns), name).default
