"""Custom operators, through which compiled graphs run the same kernels as eager code.

A graph holds such an operator as one node. Sizes are read when it runs, so that one graph serves any length.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from torch import Tensor

# Kept for as long as the process, since an operator goes with its library; a reload of this module keeps them too.
_LIBRARIES: list[Any] = globals().get("_LIBRARIES", [])


def _library(schema: str) -> Any:
    """A library with this operator, under a name where it is still free: the package may be imported twice."""
    for i in count():
        library = torch.library.Library(f"xt_blocks{i or ''}", "FRAGMENT")  # type: ignore[no-untyped-call]
        try:
            library.define(schema)  # type: ignore[no-untyped-call]
        except RuntimeError:
            if i == 99:
                raise
        else:
            _LIBRARIES.append(library)
            return library


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
    library = _library(schema)
    name = schema.partition("(")[0]
    library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{library.ns}::{name}", shape, lib=library)
    if backward is not None:
        torch.library.register_autograd(f"{library.ns}::{name}", backward, setup_context=save, lib=library)
    return getattr(getattr(torch.ops, library.ns), name).default
