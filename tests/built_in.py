"""The block kinds that the package registers itself, before any test registers one of its own."""

from __future__ import annotations

from blockdsl import kinds

BUILT_IN = tuple(kinds())
LISTED = ", ".join(sorted(BUILT_IN))
"""As messages list them."""
