"""The path that clients of x-transformers import; see `xt_blocks.x_transformers.continuous`."""

from .x_transformers.continuous import *  # noqa: F403
from .x_transformers.continuous import __all__ as __all__
