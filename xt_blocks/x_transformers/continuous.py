"""`x_transformers.continuous`, and the module of 1.x that has its wrapper."""

from .helpers import default, exists
from .models import ContinuousTransformerWrapper
from .wrappers import ContinuousAutoregressiveWrapper

__all__ = ["ContinuousAutoregressiveWrapper", "ContinuousTransformerWrapper", "default", "exists"]
