"""Positions: absolute ones, learned or sinusoidal, and rotations of queries and keys."""

from .absolute import AbsolutePositions, SinusoidalPositions, input_positions
from .rotary import Rotation, rotation

__all__ = ["AbsolutePositions", "Rotation", "SinusoidalPositions", "input_positions", "rotation"]
