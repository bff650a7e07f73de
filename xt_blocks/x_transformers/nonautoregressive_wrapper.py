"""`x_transformers.nonautoregressive_wrapper`."""

from ..generation.masking import SCHEDULES
from ..generation.nonautoregressive import Losses, NonAutoregressiveWrapper
from .helpers import default, exists, log
from .sampling import gumbel_noise, gumbel_sample, top_k

linear_schedule, cosine_schedule = SCHEDULES["linear"], SCHEDULES["cosine"]

__all__ = [
    "Losses",
    "NonAutoregressiveWrapper",
    "cosine_schedule",
    "default",
    "exists",
    "gumbel_noise",
    "gumbel_sample",
    "linear_schedule",
    "log",
    "top_k",
]
