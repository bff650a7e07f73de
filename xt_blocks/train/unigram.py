"""The baseline to beat: bytes guessed by their frequency alone.

Owns that one number. Leaves everything with context to the model.
"""

from __future__ import annotations

import torch
from torch import Tensor


def unigram_bits_per_byte(train: Tensor, valid: Tensor) -> float:
    """Mean bits to code a byte of `valid` with the byte frequencies of `train`; both uint8 (bytes,).

    Add-one smoothed over the 256 byte values, so a byte that training never saw costs much, not infinity.
    """
    counts = torch.bincount(train, minlength=256).double() + 1
    bits = -(counts / counts.sum()).log2()
    occurrences = torch.bincount(valid, minlength=256).double()
    return float((bits * occurrences).sum() / len(valid))
