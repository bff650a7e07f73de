"""`x_transformers.continuous`, and the module of 1.x that has its wrapper."""

from ..generation.continuous_autoregressive import ContinuousAutoregressiveWrapper
from .helpers import default, exists
from .models import ContinuousTransformerWrapper

__all__ = ["ContinuousAutoregressiveWrapper", "ContinuousTransformerWrapper", "default", "exists"]
