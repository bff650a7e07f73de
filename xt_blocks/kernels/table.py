"""Attention kernels in order of preference, and the one place where one is chosen."""

from __future__ import annotations

from . import contract, explicit, flex, sdpa, single_query, tiles
from .request import AttentionKernel, Request, Result

KERNELS: tuple[AttentionKernel, ...] = (
    tiles.KERNEL,
    flex.KERNEL,
    sdpa.KERNEL,
    single_query.KERNEL,
    explicit.KERNEL,
)


def attention(request: Request) -> Result:
    """Attention by the first kernel that supports the request and does not decline."""
    return contract.choose(KERNELS, request).run(request)


def run(name: str, request: Request) -> Result:
    """Attention by the kernel of this name, even if it would decline.

    Raises:
        ValueError: there is none, or it can't compute the request.
    """
    kernel = next((kernel for kernel in KERNELS if kernel.name == name), None)
    if kernel is None:
        raise ValueError(f"no kernel is called {name!r}; there are {', '.join(kernel.name for kernel in KERNELS)}")
    if (reason := kernel.supports(request)) is not None:
        raise ValueError(f"{name} can't compute this: {reason}")
    return kernel.run(request)


def why(request: Request) -> str:
    """Which kernel is chosen, and why not the others, one line each."""
    return contract.why(KERNELS, request)
