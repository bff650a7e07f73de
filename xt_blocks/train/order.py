"""The order in which sequences are read: a permutation that is computed and not kept.

A Feistel network over the bits of an index (Luby and Rackoff, 1988) permutes a power of four, and walking on while the
result is out of range permutes any smaller number of indices. So the place of any sequence at any step is known from a
seed alone: by a run that resumes, and by every process of a job.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..runtime.seeds import seed_for

ROUNDS = 6


def permuted(indices: NDArray[np.uint64], size: int, seed: int) -> NDArray[np.uint64]:
    """Where each of `indices`, all less than `size`, goes in a permutation of range(size)."""
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = [np.uint64(seed_for("round", seed, i)) for i in range(ROUNDS)]
    out = indices.astype(np.uint64)
    outside = np.ones(out.shape, dtype=bool)
    while outside.any():
        left, right = out[outside] >> half, out[outside] & mask
        for key in keys:
            left, right = right, left ^ (_scrambled(right ^ key) & mask)
        out[outside] = left << half | right
        outside = out >= size
    return out


def _scrambled(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each value's bits spread over all 64, as by the finalizer of SplitMix64 (Steele et al., 2014)."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)


def sequences_of(step: int, batch: int, size: int, seed: int) -> list[int]:
    """The numbers of the sequences of a step, of `size` in all: each once in an epoch, in an order of its own."""
    first, out = step * batch, []
    for epoch in range(first // size, (first + batch - 1) // size + 1):
        low, high = max(first, epoch * size), min(first + batch, (epoch + 1) * size)
        places = np.arange(low - epoch * size, high - epoch * size, dtype=np.uint64)
        out += permuted(places, size, seed_for("epoch", seed, epoch)).tolist()
    return out
