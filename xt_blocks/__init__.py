"""Transformer blocks lowered from layer patterns, and the keyword API for standard use.

model = TransformerWrapper(num_tokens=256, max_seq_len=1024, attn_layers=Decoder(dim=512, depth=6, heads=8))
stack = lower(blockdsl.compile("f a f | a*6 f*6 | sandwich(6)", dim=512, heads=8))
"""

from .attention import Attention, CrossAttention
from .block import Block
from .cache import Cache
from .feedforward import FeedForward
from .intermediates import Intermediates
from .layers import AttentionLayers, CrossAttender, Decoder, Encoder
from .lower import lower
from .memories import Memories
from .packed import pack, unpack
from .record import attention_map, record
from .stack import Stack
from .wrappers import (
    AutoregressiveWrapper,
    ContinuousAutoregressiveWrapper,
    ContinuousTransformerWrapper,
    NonAutoregressiveWrapper,
    TransformerWrapper,
    ViTransformerWrapper,
    XLAutoregressiveWrapper,
    XTransformer,
)

__all__ = [
    "Attention",
    "AttentionLayers",
    "AutoregressiveWrapper",
    "Block",
    "Cache",
    "ContinuousAutoregressiveWrapper",
    "ContinuousTransformerWrapper",
    "CrossAttender",
    "CrossAttention",
    "Decoder",
    "Encoder",
    "FeedForward",
    "Intermediates",
    "Memories",
    "NonAutoregressiveWrapper",
    "Stack",
    "TransformerWrapper",
    "ViTransformerWrapper",
    "XLAutoregressiveWrapper",
    "XTransformer",
    "attention_map",
    "lower",
    "pack",
    "record",
    "unpack",
]
