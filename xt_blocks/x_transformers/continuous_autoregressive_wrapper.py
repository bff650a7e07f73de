"""`x_transformers.continuous_autoregressive_wrapper`, a module of 1.x."""

from .continuous import ContinuousAutoregressiveWrapper
from .helpers import exists

__all__ = ["ContinuousAutoregressiveWrapper", "exists"]
