"""Transformer blocks lowered from layer patterns, and the keyword API for standard use.

model = TransformerWrapper(num_tokens=256, max_seq_len=1024, attn_layers=Decoder(dim=512, depth=6, heads=8))
stack = lower(blockdsl.compile("f a f | a*6 f*6 | sandwich(6)", dim=512, heads=8))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from blockdsl import __version__ as __version__

if TYPE_CHECKING:
    from .blocks.attention import Attention, CrossAttention
    from .blocks.block import Block
    from .blocks.experts import Experts
    from .blocks.feedforward import FeedForward
    from .blocks.layer_output import LayerOutput
    from .blocks.packed import pack, unpack
    from .distributed.job import distribute
    from .generation.autoregressive import AutoregressiveWrapper
    from .generation.continuous_autoregressive import ContinuousAutoregressiveWrapper
    from .generation.lower import lower
    from .generation.nonautoregressive import NonAutoregressiveWrapper
    from .generation.seq2seq import XTransformer
    from .generation.xl_autoregressive import XLAutoregressiveWrapper
    from .interop.adapt import adapt
    from .interop.hugging_face import from_hugging_face, to_hugging_face
    from .interop.pretrained import from_pretrained
    from .kernels.cross_entropy import Target
    from .measure.figures import recorded
    from .measure.importance import importance
    from .measure.profile import profile
    from .models.continuous import ContinuousTransformerWrapper
    from .models.dual import DualEncoder
    from .models.encoder_decoder import EncoderDecoder
    from .models.layers import AttentionLayers, CrossAttender, Decoder, Encoder
    from .models.transformer import TransformerWrapper
    from .models.vision import ViTransformerWrapper
    from .runtime.auxiliary import auxiliary_losses
    from .runtime.cache import Cache
    from .runtime.intermediates import Intermediates
    from .runtime.loops import with_loops
    from .runtime.memories import Memories
    from .runtime.mup import mup
    from .runtime.record import attention_map, record
    from .runtime.select import parameter_groups, parameters
    from .runtime.stack import Stack
    from .runtime.why import why

# A name's module is loaded when the name is first asked for, so that a command that needs no torch does not load it.
_HOMES = {
    "blocks.attention": (
        "Attention",
        "CrossAttention",
    ),
    "blocks.block": ("Block",),
    "blocks.experts": ("Experts",),
    "blocks.feedforward": ("FeedForward",),
    "blocks.layer_output": ("LayerOutput",),
    "blocks.packed": (
        "pack",
        "unpack",
    ),
    "distributed.job": ("distribute",),
    "generation.autoregressive": ("AutoregressiveWrapper",),
    "generation.continuous_autoregressive": ("ContinuousAutoregressiveWrapper",),
    "generation.nonautoregressive": ("NonAutoregressiveWrapper",),
    "generation.xl_autoregressive": ("XLAutoregressiveWrapper",),
    "interop.adapt": ("adapt",),
    "interop.hugging_face": (
        "from_hugging_face",
        "to_hugging_face",
    ),
    "interop.pretrained": ("from_pretrained",),
    "kernels.cross_entropy": ("Target",),
    "measure.figures": ("recorded",),
    "measure.importance": ("importance",),
    "measure.profile": ("profile",),
    "models.continuous": ("ContinuousTransformerWrapper",),
    "models.dual": ("DualEncoder",),
    "models.layers": (
        "AttentionLayers",
        "CrossAttender",
        "Decoder",
        "Encoder",
    ),
    "generation.lower": ("lower",),
    "generation.seq2seq": ("XTransformer",),
    "models.encoder_decoder": ("EncoderDecoder",),
    "models.transformer": ("TransformerWrapper",),
    "models.vision": ("ViTransformerWrapper",),
    "runtime.auxiliary": ("auxiliary_losses",),
    "runtime.cache": ("Cache",),
    "runtime.intermediates": ("Intermediates",),
    "runtime.loops": ("with_loops",),
    "runtime.memories": ("Memories",),
    "runtime.mup": ("mup",),
    "runtime.record": (
        "attention_map",
        "record",
    ),
    "runtime.select": (
        "parameter_groups",
        "parameters",
    ),
    "runtime.stack": ("Stack",),
    "runtime.why": ("why",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

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
    "DualEncoder",
    "Encoder",
    "EncoderDecoder",
    "Experts",
    "FeedForward",
    "Intermediates",
    "LayerOutput",
    "Memories",
    "NonAutoregressiveWrapper",
    "Stack",
    "Target",
    "TransformerWrapper",
    "ViTransformerWrapper",
    "XLAutoregressiveWrapper",
    "XTransformer",
    "adapt",
    "attention_map",
    "auxiliary_losses",
    "distribute",
    "from_hugging_face",
    "from_pretrained",
    "importance",
    "lower",
    "mup",
    "pack",
    "parameter_groups",
    "parameters",
    "profile",
    "record",
    "recorded",
    "to_hugging_face",
    "unpack",
    "why",
    "with_loops",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
