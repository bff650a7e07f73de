"""This library, through its public names."""

from __future__ import annotations

from typing import Any

from torch import Tensor

import xt_blocks
from xt_blocks import AutoregressiveWrapper, Decoder, TransformerWrapper

from ..setting import Setting
from .base import Contestant, LeftOut


class Ours(Contestant):
    """Decoder and wrappers of the keyword API; `layers` are the Decoder's."""

    def __init__(self, setting: Setting, **layers: Any) -> None:
        super().__init__(setting)
        stack = Decoder(
            dim=setting.dim, depth=setting.depth, heads=setting.heads, attn_dim_head=setting.dim_head, **layers
        )
        self.net = self.placed(
            TransformerWrapper(num_tokens=setting.vocabulary, max_seq_len=setting.length, attn_layers=stack)
        )
        self.graph = self.net.graph
        self.wrapper = AutoregressiveWrapper(self.net)

    def loss(self, tokens: Tensor) -> Tensor:
        return self.wrapper(tokens)

    def generate(self, prompt: Tensor, new: int) -> Tensor:
        return self.wrapper.generate(prompt, new, temperature=0.0)


class Packed(Ours):
    """With its weights packed for the kernels of the CPU."""

    def __init__(self, setting: Setting, **layers: Any) -> None:
        super().__init__(setting, **layers)
        if not hasattr(xt_blocks, "pack"):
            raise LeftOut("this release packs no weights")
        self.net.eval()
        xt_blocks.pack(self.net)


class Compiled(Ours):
    """With a step of decoding that torch.compile takes whole."""

    def __init__(self, setting: Setting, **layers: Any) -> None:
        super().__init__(setting, **layers)
        raise LeftOut("this release compiles no step of decoding")
