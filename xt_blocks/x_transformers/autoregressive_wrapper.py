"""`x_transformers.autoregressive_wrapper`."""

from .helpers import align_right, cast_tuple, default, eval_decorator, exists, identity, log, pad_at_dim
from .sampling import FILTER_LOGITS_FN, gumbel_noise, gumbel_sample, min_p, top_a, top_k, top_p
from .wrappers import AutoregressiveWrapper

__all__ = [
    "FILTER_LOGITS_FN",
    "AutoregressiveWrapper",
    "align_right",
    "cast_tuple",
    "default",
    "eval_decorator",
    "exists",
    "gumbel_noise",
    "gumbel_sample",
    "identity",
    "log",
    "min_p",
    "pad_at_dim",
    "top_a",
    "top_k",
    "top_p",
]
