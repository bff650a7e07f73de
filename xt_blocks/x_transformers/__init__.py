"""x-transformers' package and its module of the same name, for code written against either.

    import xt_blocks.x_transformers as x_transformers          # in place of `import x_transformers`
    from xt_blocks.x_transformers import TransformerWrapper, Decoder, AutoregressiveWrapper

The classes are ours with the arguments, results and attributes of releases 1.x and 2.x; what remains different is told
in docs/from-x-transformers.md. Nothing else of this package imports this folder.
"""

from ..generation.continuous_autoregressive import ContinuousAutoregressiveWrapper
from ..generation.nonautoregressive import NonAutoregressiveWrapper
from ..runtime.intermediates import Intermediates as LayerIntermediates
from .helpers import (
    DEFAULT_DIM_HEAD,
    ShiftTokens,
    always,
    at_most_one_of,
    cast_tuple,
    default,
    divisible_by,
    dropout_seq,
    equals,
    exists,
    first,
    group_by_key_prefix,
    group_dict_by_key,
    groupby_prefix_and_trim,
    identity,
    init_zero_,
    is_empty,
    l2norm,
    log,
    masked_mean,
    max_neg_value,
    maybe,
    not_equals,
    pad_at_dim,
    pick_and_pop,
    shift,
    softclamp,
    string_begins_with,
)
from .layers import Attend, Attention, FeedForward
from .models import ContinuousTransformerWrapper, TransformerWrapper, ViTransformerWrapper, XTransformer
from .modules import (
    GLU,
    AbsolutePositionalEmbedding,
    GRUGating,
    LayerNorm,
    ReluSquared,
    Residual,
    RMSNorm,
    RotaryEmbedding,
    ScaledSinusoidalEmbedding,
    ScaleNorm,
    TokenEmbedding,
    apply_rotary_pos_emb,
    rotate_half,
)
from .sampling import FILTER_LOGITS_FN, gumbel_noise, gumbel_sample, min_p, top_a, top_k, top_p
from .stacks import AttentionLayers, CrossAttender, Decoder, Encoder
from .wrappers import AutoregressiveWrapper, XLAutoregressiveWrapper

Intermediates = LayerIntermediates

__all__ = [
    "DEFAULT_DIM_HEAD",
    "FILTER_LOGITS_FN",
    "GLU",
    "AbsolutePositionalEmbedding",
    "Attend",
    "Attention",
    "AttentionLayers",
    "AutoregressiveWrapper",
    "ContinuousAutoregressiveWrapper",
    "ContinuousTransformerWrapper",
    "CrossAttender",
    "Decoder",
    "Encoder",
    "FeedForward",
    "GRUGating",
    "Intermediates",
    "LayerIntermediates",
    "LayerNorm",
    "NonAutoregressiveWrapper",
    "RMSNorm",
    "ReluSquared",
    "Residual",
    "RotaryEmbedding",
    "ScaleNorm",
    "ScaledSinusoidalEmbedding",
    "ShiftTokens",
    "TokenEmbedding",
    "TransformerWrapper",
    "ViTransformerWrapper",
    "XLAutoregressiveWrapper",
    "XTransformer",
    "always",
    "apply_rotary_pos_emb",
    "at_most_one_of",
    "cast_tuple",
    "default",
    "divisible_by",
    "dropout_seq",
    "equals",
    "exists",
    "first",
    "group_by_key_prefix",
    "group_dict_by_key",
    "groupby_prefix_and_trim",
    "gumbel_noise",
    "gumbel_sample",
    "identity",
    "init_zero_",
    "is_empty",
    "l2norm",
    "log",
    "masked_mean",
    "max_neg_value",
    "maybe",
    "min_p",
    "not_equals",
    "pad_at_dim",
    "pick_and_pop",
    "rotate_half",
    "shift",
    "softclamp",
    "string_begins_with",
    "top_a",
    "top_k",
    "top_p",
]
