"""Positions: learned absolute ones, and rotations of queries and keys."""

from .absolute import AbsolutePositions
from .rotary import Rotation, rotation

__all__ = ["AbsolutePositions", "Rotation", "rotation"]
