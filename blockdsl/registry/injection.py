"""The stack's input, injected into every branch (Bai et al., arXiv:1909.01377): options, parameters, FLOPs.

A branch reads the stream plus a linear layer of what entered the stack, the same for all blocks; the stream itself gets
nothing of it. It is a setting of the stack, which every block keeps among its options.
"""

from __future__ import annotations

from typing import Any

from .options import Option

REINJECT_INPUT = Option(
    "reinject_input",
    bool,
    False,
    "each branch reads the stream plus a linear layer of the stack's input, one for all (arXiv:1909.01377)",
    setting="reinject_input",
)
REINJECT_GATE = Option(
    "learned_reinject_input_gate",
    bool,
    False,
    "times a number between 0 and 1 that the input says for each token",
    setting="learned_reinject_input_gate",
)
INJECTION_OPTIONS = (REINJECT_INPUT, REINJECT_GATE)


def injection_clash(o: Any) -> str | None:
    """What is wrong with a block's options, or None."""
    if o.learned_reinject_input_gate and not o.reinject_input:
        return "learned_reinject_input_gate is set, but it needs reinject_input"
    if o.reinject_input and o.num_residual_streams > 1:
        return f"reinject_input is set, but branches read num_residual_streams={o.num_residual_streams}"
    if o.reinject_input and o.shared_norm:
        return "reinject_input is set, but with shared_norm a branch reads what another block has normed"
    return None


def injection_shapes(dim: int, gate: bool) -> dict[str, tuple[int, ...]]:
    """The parameters of a stack that injects its input, by name."""
    project: dict[str, tuple[int, ...]] = {"project.weight": (dim, dim)}
    return project | ({"gate.weight": (1, dim)} if gate else {})


def injection_saved(dim: int, gate: bool) -> int:
    """Numbers of a token that a stack saves which injects its input: that, and the gate with what it multiplies."""
    return dim + (dim + 1) * gate
