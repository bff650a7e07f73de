"""Models around a stack: what turns a task's inputs into a stream and the stream into its outputs."""

from .autoregressive import AutoregressiveWrapper
from .nonautoregressive import NonAutoregressiveWrapper
from .transformer import TransformerWrapper
from .vision import ViTransformerWrapper

__all__ = ["AutoregressiveWrapper", "NonAutoregressiveWrapper", "TransformerWrapper", "ViTransformerWrapper"]
