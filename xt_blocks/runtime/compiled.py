"""torch.compile by block: each kind of block is compiled once, however deep the model.

Owns which modules are compiled and how. They stay as they are, with their names; what is between the blocks, and
activation checkpointing around them, is not compiled.
"""

from __future__ import annotations

from torch import nn

from ..kernels import compat
from .stack import Stack

BACKEND = "inductor"
SHAPES = 64
"""How many shapes, kinds and modes of a method have code at once. Blocks of all kinds share a method, and torch's limit
of 8 would leave some uncompiled."""


def compile_blocks(model: nn.Module) -> None:
    """Have the blocks of `model` compiled when they are first called."""
    for stack in model.modules():
        if isinstance(stack, Stack):
            for block in stack.blocks.values():
                compile_block(block)


def compile_block(block: nn.Module) -> None:
    """The same of one block.

    Each shape has code of its own: code for any shape would depend on which came first, and a resumed run sees others.
    """
    compat.allow_recompiles(SHAPES)
    block.compile(backend=BACKEND, dynamic=False)
