"""x-transformers, any release of 2.x, and of 1.x what it has."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor

from ..setting import Setting
from .base import Contestant, LeftOut, imported

NAME = "x-transformers"


class XTransformers(Contestant):
    """Decoder and wrappers as its README uses them; `layers` are the Decoder's.

    The loss is taken of its logits: releases differ in how many tokens their own wrapper runs the model on.
    """

    def __init__(self, setting: Setting, **layers: Any) -> None:
        super().__init__(setting)
        library = imported("x_transformers", NAME)
        sizes = {"dim": setting.dim, "depth": setting.depth, "heads": setting.heads, "attn_dim_head": setting.dim_head}
        try:
            stack = library.Decoder(**sizes, **layers)
        except (AssertionError, TypeError) as error:
            raise LeftOut(f"{NAME} refuses {', '.join(layers)}: {error}") from None
        self.net = self.placed(
            library.TransformerWrapper(num_tokens=setting.vocabulary, max_seq_len=setting.length, attn_layers=stack)
        )
        self.wrapper = library.AutoregressiveWrapper(self.net)
        # releases without a cache know no temperature of 0
        cached = "cache_kv" in inspect.signature(self.wrapper.generate).parameters
        self.greedy = {"temperature": 0.0, "cache_kv": True} if cached else {"temperature": 1e-6}

    def generate(self, prompt: Tensor, new: int) -> Tensor:
        return self.wrapper.generate(prompt, new, **self.greedy)


def fused(setting: Setting, **layers: Any) -> XTransformers:
    """With the fused kernel."""
    return XTransformers(setting, attn_flash=True, **layers)


def fastest(setting: Setting, **layers: Any) -> XTransformers:
    """With the fused kernel if these options allow it."""
    try:
        return fused(setting, **layers)
    except LeftOut:
        return XTransformers(setting, **layers)


def talking_heads(setting: Setting) -> XTransformers:
    """Heads that talk before and after the softmax, which 1.x names together."""
    try:
        return XTransformers(setting, attn_pre_talking_heads=True, attn_post_talking_heads=True)
    except LeftOut:
        return XTransformers(setting, attn_talking_heads=True)
