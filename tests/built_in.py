"""The block kinds that the package registers itself, before any test registers one of its own."""

from __future__ import annotations

from typing import Any

from blockdsl import kinds
from blockdsl.registry.options import by_name

BUILT_IN = tuple(kinds())
LISTED = ", ".join(sorted(BUILT_IN))
"""As messages list them."""

HAVE_KERNEL = "".join(
    f"'{kind.name}' ({kind.title}), " for kind in kinds().values() if "kernel" in by_name(kind.options)
)
"""Kinds with the option `kernel`, as messages list them before others."""

HYBRID = tuple(name for name in BUILT_IN if name not in ("a", "c", "f"))
"""The built-in kinds besides attention and feedforward."""
SMALL: dict[str, dict[str, Any]] = {
    "e": {"experts": 3, "inner": 8},
    "gdn": {"heads": 2, "dim_head": 4},
    "kda": {"heads": 2, "dim_head": 4},
    "gla": {"heads": 2, "dim_head": 4},
    "m": {"state": 4, "dim_head": 8, "chunk": 3},
    "mamba": {"state": 4},
    "rglru": {"heads": 2},
}
"""What small models say of blocks that are large by default; scans have more than one chunk."""


def small(kind: str) -> str:
    """A block of a kind with what SMALL says of it."""
    said = ", ".join(f"{name}={value}" for name, value in SMALL.get(kind, {}).items())
    return f"{kind}({said})" if said else kind
