"""`x_transformers.xl_autoregressive_wrapper`."""

from .helpers import default, divisible_by, exists, first, is_empty
from .wrappers import XLAutoregressiveWrapper

__all__ = ["XLAutoregressiveWrapper", "default", "divisible_by", "exists", "first", "is_empty"]
