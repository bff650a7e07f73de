"""Operations of our own for compiled graphs, which then run the kernels that eager code runs.

A graph holds such an operation as one node. Its sizes are looked at when it runs, so that the graph is of any length.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from torch import Tensor


def _library() -> Any:
    """A library of a name that is free: the package may be imported twice."""
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
    """The operation.

    Args:
        schema: its name, arguments and result, as torch.library has them.
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
