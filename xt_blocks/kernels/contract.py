"""What a kernel is, and how one is chosen: the first in an ordered table that supports a request and does not decline.

Owns the contract only. A table's last kernel supports every request, so that there is always one. The table for
attention is in `table`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Request = TypeVar("Request")
Result = TypeVar("Result")


def _takes_all(request: object) -> str | None:
    return None


@dataclass(frozen=True)
class Kernel(Generic[Request, Result]):
    """One way to compute a request.

    Attributes:
        name: what `why` calls it.
        run: computes a request that it supports, even one it declines.
        supports: None, or the reason why it cannot compute the request.
        declines: None, or the reason why it leaves the request to a later, faster kernel. It is the cheaper check and
            comes first, so it must also answer for requests that are not supported.
    """

    name: str
    run: Callable[[Request], Result]
    supports: Callable[[Request], str | None] = _takes_all
    declines: Callable[[Request], str | None] = _takes_all


def choose(table: Sequence[Kernel[Request, Result]], request: Request) -> Kernel[Request, Result]:
    """The first kernel that supports the request and does not decline it."""
    for kernel in table:
        if kernel.declines(request) is None and kernel.supports(request) is None:  # the cheaper check first
            return kernel
    raise RuntimeError("no kernel of the table supports the request, and the last one should support all")


def why(table: Sequence[Kernel[Request, Result]], request: Request) -> str:
    """The chosen kernel, and why each of the others was not, one per line in the order of the table."""
    chosen = choose(table, request)
    lines = [f"{chosen.name} is taken"]
    for kernel in table:
        if kernel is not chosen:
            reason = kernel.supports(request) or kernel.declines(request) or f"would do, but {chosen.name} comes first"
            lines.append(f"  {kernel.name}: {reason}")
    return "\n".join(lines)
