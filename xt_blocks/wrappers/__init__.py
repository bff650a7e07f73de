"""Models around a stack: what turns a task's inputs into a stream and the stream into its outputs."""

from .autoregressive import AutoregressiveWrapper
from .continuous import ContinuousTransformerWrapper
from .continuous_autoregressive import ContinuousAutoregressiveWrapper
from .nonautoregressive import NonAutoregressiveWrapper
from .seq2seq import XTransformer
from .transformer import TransformerWrapper
from .vision import ViTransformerWrapper
from .xl_autoregressive import XLAutoregressiveWrapper

__all__ = [
    "AutoregressiveWrapper",
    "ContinuousAutoregressiveWrapper",
    "ContinuousTransformerWrapper",
    "NonAutoregressiveWrapper",
    "TransformerWrapper",
    "ViTransformerWrapper",
    "XLAutoregressiveWrapper",
    "XTransformer",
]
