"""Words that drawings use for blocks of several kinds."""

from __future__ import annotations

from ..activations import ACTIVATIONS


def counted(number: int, noun: str) -> str:
    """`1 head`, `8 heads`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def biased(bias: bool) -> str:
    """The end of what is said of a linear layer."""
    return " + bias" if bias else ""


def by_gain(which: str) -> str:
    """The end of what is said of a norm of queries and keys."""
    return {"head": "", "each": ", gains by head", "all": ", all heads"}[which]


_GATED = {"silu": "SwiGLU", "gelu": "GEGLU", "gelu_tanh": "GEGLU (tanh)", "relu": "ReGLU", "sigmoid": "GLU"}


def activated(activation: str, glu: bool) -> str:
    """`GELU`, `SwiGLU`: an activation, or the gate that has it, as papers call them."""
    return _GATED.get(activation, f"{ACTIVATIONS[activation]} GLU") if glu else ACTIVATIONS[activation]
