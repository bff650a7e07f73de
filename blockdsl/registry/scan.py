"""What the chunked scans of `xt_blocks.kernels.scans` cost and save, a row and head of each. No torch.

d features of a key, e of a value. Two operations a multiply-add, as everywhere.
"""

from __future__ import annotations

CHUNK = 64
"""Tokens of a chunk, a power of two. Another size gives the same results up to rounding."""


def chunk_of(seq: int, chunk: int = CHUNK) -> int:
    """The chunk's size for so many tokens: no larger than it needs to be."""
    size = 1
    while size < seq and size < chunk:  # comparisons alone, so that one compiled graph serves many lengths
        size *= 2
    return min(size, chunk)


def linear_attention_flops(seq: int, d: int, e: int, by_channel: bool) -> int:
    """Of `scans.gla`: products of tokens within a chunk, their sums of values, and the state's two products."""
    if seq == 1:
        return 4 * d * e
    size, tokens = _chunks(seq)
    return tokens * (_products(size, d, by_channel) + 2 * size * e + 4 * d * e)


def delta_flops(seq: int, d: int, e: int, by_channel: bool) -> int:
    """Of `scans.delta`: the same, the products of keys, a triangular solve and the state's answers to keys."""
    if seq == 1:
        return 6 * d * e
    size, tokens = _chunks(seq)
    return tokens * (2 * _products(size, d, by_channel) + 2 * size * e + size * (d + e) + 6 * d * e)


def products_saved(seq: int, d: int, by_channel: bool, lefts: int = 1) -> int:
    """Numbers that autograd saves of the products of tokens within a chunk.

    Args:
        lefts: what keys are multiplied with: the queries, and under the delta rule the keys.
    """
    size, tokens = _chunks(seq)
    if by_channel:  # blocks of twice the tokens at each level
        return tokens * (lefts * size + (lefts + 1) * d * (size - 1).bit_length())
    return tokens * size * (2 + 2 * lefts)


def states_saved(seq: int, d: int, e: int) -> int:
    """Numbers of the states before all chunks."""
    size, tokens = _chunks(seq)
    return tokens // size * d * e


def _chunks(seq: int) -> tuple[int, int]:
    """The chunk's size, and the tokens of all chunks, the last one filled up."""
    size = chunk_of(seq)
    return size, -(-seq // size) * size


def _products(size: int, d: int, by_channel: bool) -> int:
    """A token's products with those of its chunk; decays by channel leave later tokens out."""
    return (size - 1) * d if by_channel else 2 * size * d
