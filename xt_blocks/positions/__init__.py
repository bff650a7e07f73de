"""Positions: absolute ones, rotations of queries and keys, and biases of their scores."""

from .absolute import AbsolutePositions
from .bias import ALiBi, DynamicBias, T5Bias
from .rotary import Rotation, rotation

__all__ = ["ALiBi", "AbsolutePositions", "DynamicBias", "Rotation", "T5Bias", "rotation"]
