"""`x_transformers.attend`."""

from ..kernels.request import Scores as Intermediates
from .helpers import at_most_one_of, default, exists, softclamp
from .layers import Attend

__all__ = ["Attend", "Intermediates", "at_most_one_of", "default", "exists", "softclamp"]
