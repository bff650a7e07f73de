"""Weights of other libraries read into our models."""

from .x_transformers import load_x_transformers

__all__ = ["load_x_transformers"]
