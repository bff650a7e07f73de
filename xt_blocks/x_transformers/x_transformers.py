"""`x_transformers.x_transformers`: the module that has most of the package."""

from . import *  # noqa: F403
from . import __all__ as __all__
