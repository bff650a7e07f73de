"""Positions: absolute ones, learned or sinusoidal, rotations of queries and keys, and biases of their scores."""

from .absolute import AbsolutePositions, SinusoidalPositions, input_positions
from .bias import ALiBi, DynamicBias, T5Bias
from .rotary import Rotary, Rotation

__all__ = [
    "ALiBi",
    "AbsolutePositions",
    "DynamicBias",
    "Rotary",
    "Rotation",
    "SinusoidalPositions",
    "T5Bias",
    "input_positions",
]
