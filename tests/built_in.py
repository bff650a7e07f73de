"""The block kinds that the package registers itself, before any test registers one of its own."""

from __future__ import annotations

from blockdsl import kinds
from blockdsl.registry.options import by_name

BUILT_IN = tuple(kinds())
LISTED = ", ".join(sorted(BUILT_IN))
"""As messages list them."""

HAVE_KERNEL = "".join(
    f"'{kind.name}' ({kind.title}), " for kind in kinds().values() if "kernel" in by_name(kind.options)
)
"""Kinds with the option `kernel`, as messages list them before others."""
