"""The blocks of a stack as x-transformers keeps them: (norms, layer, residual) each, to be read and replaced."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from ..blocks.block import Block
from .settable import Written


def triples(blocks: Sequence[Block]) -> Written:
    """For each block ((pre-norm, norm of the branch, post-norm), layer, residual)."""
    return Written([_triple(block) for block in blocks], partial(_put_triple, blocks))


def _triple(block: Block) -> Written:
    return Written([_norms(block), block.layer, block.residual], partial(_put_part, block))


def _norms(block: Block) -> Written:
    pre, post = (block.norm, block.post_norm) if block.pre_norm else (None, block.norm)
    return Written([pre, block.sandwich_norm, post], partial(_put_norm, block))


def _put_triple(blocks: Sequence[Block], index: int, triple: Any) -> None:
    block = blocks[index]
    before = [*_triple(block)]
    for part, module in enumerate([*triple]):
        if module is not before[part]:
            _put_part(block, part, module)


def _put_part(block: Block, part: int, module: Any) -> None:
    if part == 0:
        before = [*_norms(block)]
        for place, norm in enumerate([*module]):
            if norm is not before[place]:
                _put_norm(block, place, norm)
    elif part == 1:
        block.layer = module
    else:  # called with the update and the stream, as ours is
        block.residual = module


def _put_norm(block: Block, place: int, norm: nn.Module | None) -> None:
    if place == 1:
        block.sandwich_norm = norm
    elif (place == 0) == block.pre_norm:
        block.norm = nn.Identity() if norm is None else norm
    elif block.post_norm is not None:
        block.post_norm = nn.Identity() if norm is None else norm
    elif norm is not None:
        where = "before the layer, none after the sum" if block.pre_norm else "after the sum, none before the layer"
        raise TypeError(f"a norm is put where this stack has none: it has one {where}")
