"""Models around a stack: what turns a task's inputs into a stream and the stream into its outputs."""

from .autoregressive import AutoregressiveWrapper
from .transformer import TransformerWrapper
from .xl_autoregressive import XLAutoregressiveWrapper

__all__ = ["AutoregressiveWrapper", "TransformerWrapper", "XLAutoregressiveWrapper"]
