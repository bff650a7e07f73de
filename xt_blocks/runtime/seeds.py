"""One seed for each random choice of a run: a pure function of the run's seed, the purpose and the step.

Owns how seeds are combined. A resumed run draws what an uninterrupted one draws because nothing is
carried from step to step: each step's generators start from `seed_for(...)`. Leaves the drawing to the
code that needs it.
"""

from __future__ import annotations

import hashlib


def seed_for(purpose: str, *of: int | str) -> int:
    """A seed in [0, 2**63) for one purpose ("batch", "dropout", ...) and any integers (run seed, step) or names.

    A cryptographic hash, since `seed + step` would give run 0's step 1 the numbers of run 1's step 0.
    """
    text = ":".join([purpose, *map(str, of)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
