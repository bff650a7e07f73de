"""The path that clients of x-transformers import; see `xt_blocks.x_transformers.continuous_autoregressive_wrapper`."""

from .x_transformers.continuous_autoregressive_wrapper import *  # noqa: F403
from .x_transformers.continuous_autoregressive_wrapper import __all__ as __all__
