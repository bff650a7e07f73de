"""The path that clients of x-transformers import; see `xt_blocks.x_transformers.attend`."""

from .x_transformers.attend import *  # noqa: F403
from .x_transformers.attend import __all__ as __all__
